"""Stage `audio_language`: LoRA on tiny random audio-language models, and captions with it."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from audio_language_parts import audio_flamingo, qwen2_audio, voxtral
from builders import noise
from data_sets import write_csv
from hub_parts import offline, publish
from safetensors.torch import load_file, save_file

from earwitness import Captioner
from earwitness.adapters.audio_language import AudioLanguageCaptioner
from earwitness.captioning.choice import ModelChoice
from earwitness.errors import CheckpointError, ConfigError
from earwitness.models.weights import read_weights
from earwitness.training.stages import run_recipe

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "finetune_audio_language.toml"
WEIGHTS = "adapter_model.safetensors"


def table(folder: Path) -> Path:
    """Two sounds, each with a sentence of its own."""
    soundfile.write(folder / "hiss.wav", noise(0.5), 16000)
    soundfile.write(folder / "loud.wav", 9 * noise(0.5, 1), 16000)
    rows: list[list[object]] = [["a", "hiss.wav", "ab"], ["b", "loud.wav", "cd"]]
    return write_csv(folder / "mine.csv", ["id", "audio", "caption_1"], rows)


def tune(model: Path | str, folder: Path, *changes: str, epochs: int = 2) -> dict[str, float]:
    """A short run of the recipe on two clips."""
    manifest = table(folder)
    changed = [f"model={model}", "quantize=none", f"fit.epochs={epochs}", "fit.batch_size=2"]
    changed += [f"source.train={manifest}", f"source.validation={manifest}"]
    changed += ["fit.accumulate=1", "fit.precision=fp32", "fit.trackers=[]"]
    changed += ["validation.select=decode", "validation.captions=2", "fit.learning_rate=0.05"]
    changed += [f"fit.validate_every={epochs}", *changes]
    return run_recipe(RECIPE, folder / "run", changed)


def captions(model: Path | str) -> list[str]:
    captioner = Captioner.load(f"hf:{model}")
    greedy = captioner.decoding.model_copy(update={"max_new_tokens": 6})
    rows = captioner.caption_waveforms([noise(0.5), 9 * noise(0.5, 1)], greedy)
    return [row[0].text for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A model in `base` and its run in `run`."""
    place = tmp_path_factory.mktemp("tuned")
    tune(audio_flamingo(place / "base"), place, epochs=4)
    return place


@pytest.mark.parametrize("model", [qwen2_audio, voxtral])
def test_every_kind_learns_and_says_what_it_learned(tmp_path, model):
    base = model(tmp_path / "base")
    before = captions(base)
    tune(base, tmp_path, "lora.targets=['o_proj','down_proj']", epochs=12)
    losses = [
        row["decode"]
        for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        if "decode" in (row := json.loads(line))
    ]
    # The table of output tokens is random and frozen, so that 1.3 is the most that can be gained.
    assert losses[-1] < losses[0] - 0.4
    assert captions(tmp_path / "run" / "best") != before


def test_only_the_language_model_learns_and_the_folder_is_an_ordinary_one_of_peft(run):
    from peft import PeftModel
    from transformers import AudioFlamingo3ForConditionalGeneration

    stored = read_weights(run / "run" / "best" / WEIGHTS)
    assert all(".language_model." in name and "lora_" in name for name in stored)
    assert len(stored) == 2 * 2 * 2  # layers, queries and values, down and up
    plain = AudioFlamingo3ForConditionalGeneration.from_pretrained(
        run / "base", dtype=torch.float32
    )
    theirs = PeftModel.from_pretrained(plain, run / "run" / "best").merge_and_unload()
    mine = AudioLanguageCaptioner.load(str(run / "run" / "best"))
    inputs = mine._inputs([noise(0.5)])
    with torch.inference_mode():
        torch.testing.assert_close(
            mine.model(**inputs).logits, theirs.eval()(**inputs).logits, atol=1e-3, rtol=1e-3
        )


def test_loss_is_the_cross_entropy_of_each_caption_by_itself(run):
    captioner = AudioLanguageCaptioner.load(str(run / "base"))
    sounds, texts = [noise(0.5), noise(0.9, 1)], ["ab", "abcdef"]
    sums, count = 0.0, 0
    for sound, text in zip(sounds, texts, strict=True):
        inputs = captioner._inputs([sound])
        ids = captioner._processor.tokenizer(text, add_special_tokens=False).input_ids
        ids = torch.tensor([[*ids, captioner._processor.tokenizer.eos_token_id]])
        asked = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.inference_mode():
            logs = captioner.model(**inputs).logits[0, asked - 1 : -1].log_softmax(-1)
        sums -= float(logs.gather(1, ids.T).sum())
        count += ids.shape[1]
    with torch.inference_mode():
        assert float(captioner.loss(sounds, texts)) == pytest.approx(sums / count, rel=1e-4)


def test_a_model_of_the_hub_is_named_by_its_commit(tmp_path, monkeypatch):
    base = audio_flamingo(tmp_path / "base")
    commit = publish(offline(tmp_path, monkeypatch), "ada/tiny-audio", base)
    tune("ada/tiny-audio", tmp_path)
    settings = json.loads((tmp_path / "run" / "best" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "ada/tiny-audio"
    assert settings["revision"] in str(commit)
    assert len(captions(tmp_path / "run" / "best")) == 2


def test_results_of_two_trainings_are_not_mixed_up(run):
    best, last = (f"hf:{run / 'run' / name}" for name in ("best", "last"))
    other = run / "other"
    shutil.copytree(run / "run" / "best", other, dirs_exist_ok=True)
    changed = {name: 2 * value for name, value in read_weights(other / WEIGHTS).items()}
    save_file(changed, other / WEIGHTS, metadata={"format": "pt"})
    found = {ModelChoice(name).fingerprint(False) for name in (best, last, f"hf:{other}")}
    assert ModelChoice(f"hf:{other}").fingerprint(False) not in {
        ModelChoice(best).fingerprint(False),
        ModelChoice(f"hf:{run / 'base'}").fingerprint(False),
    }
    assert len(found) >= 2


def test_layers_that_are_not_there_and_clips_that_are_too_long_are_one_sentence(tmp_path):
    base = qwen2_audio(tmp_path / "base")
    with pytest.raises(ConfigError, match="language model has no c_attn; it has .*q_proj"):
        tune(base, tmp_path, "lora.targets=['c_attn']")
    captioner = AudioLanguageCaptioner.load(str(base))
    with pytest.raises(ConfigError, match=r"at most 30 s, got 31.0 s; .*source.seconds"):
        captioner.loss([noise(31.0)], ["a dog barks"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "/nowhere/at/all: no such folder"),
        ({"r": 10**9}, "r"),
        ({"use_dora": True}, "use_dora is True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is .*lm_head"),
        ({"target_modules": ["k_proj"]}, "is missing|is unknown"),
        ({"target_modules": ["nothing"]}, "not LoRA weights of this model"),
    ],
)
def test_damaged_folders_are_one_sentence(run, tmp_path, change, sentence):
    folder = tmp_path / "x"
    shutil.copytree(run / "run" / "best", folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((CheckpointError, ConfigError), match=sentence):
        Captioner.load(f"hf:{folder}")


def test_weights_that_are_not_numbers_are_refused(run, tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(run / "run" / "best", folder)
    state = load_file(folder / WEIGHTS)
    next(iter(state.values())).fill_(float("nan"))
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not finite|nan"):
        Captioner.load(f"hf:{folder}")
