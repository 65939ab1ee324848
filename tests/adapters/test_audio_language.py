"""Audio-language models of transformers as captioners, on tiny random ones in the hub's layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_language_parts import audio_flamingo, qwen2_audio, voxtral
from builders import noise
from hub_parts import offline, publish
from transformers import AudioFlamingo3ForConditionalGeneration, AutoProcessor

from earwitness import Captioner
from earwitness.adapters.audio_language import KINDS, AudioLanguageCaptioner
from earwitness.adapters.settings import PROMPT, AdapterOptions, as_caption
from earwitness.captioning.captioner import open_captioner
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.local import caption_segments
from earwitness.captioning.pipeline import CaptionSettings
from earwitness.captioning.segments import Windows
from earwitness.errors import CheckpointError, ConfigError, MissingDependencyError

CLIPS = [noise(1.0), noise(2.5, 1), noise(0.4, 2)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "qwen2_audio": qwen2_audio(place / "qwen"),
        "audioflamingo3": audio_flamingo(place / "flamingo"),
        "voxtral": voxtral(place / "voxtral"),
    }


@pytest.fixture(scope="module")
def flamingo(folders) -> Captioner:
    return Captioner.load(f"hf:{folders['audioflamingo3']}")


def short(captioner: Captioner, **changes):
    return captioner.decoding.model_copy(update={"max_new_tokens": 6, **changes})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_captions_do_not_depend_on_the_batch(folders, kind):
    captioner = Captioner.load(f"hf:{folders[kind]}")
    assert isinstance(captioner, Captioner)
    together = captioner.caption_waveforms(CLIPS, short(captioner))
    for clip, row in zip(CLIPS, together, strict=True):
        [[alone]] = captioner.caption_waveforms([clip], short(captioner))
        assert alone.text == row[0].text
        assert alone.score == pytest.approx(row[0].score, rel=1e-3)
        assert alone.end_s == pytest.approx(len(clip) / 16_000)


def test_caption_is_what_the_model_itself_generates(folders, flamingo):
    folder = folders["audioflamingo3"]
    processor = AutoProcessor.from_pretrained(folder)
    model = AudioFlamingo3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    content = [{"type": "text", "text": PROMPT}, {"type": "audio", "audio": CLIPS[0]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
    )
    new = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    [text] = processor.batch_decode(
        new[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    [[mine]] = flamingo.caption_waveforms([CLIPS[0]], short(flamingo))
    assert mine.text == as_caption(text)


def test_voxtral_hears_each_half_minute_as_mistral_common_writes_it(folders):
    captioner = AudioLanguageCaptioner.load(
        str(folders["voxtral"]), options=AdapterOptions(prompt="Describe it, señor. [AUDIO]")
    )
    inputs = captioner._inputs([noise(31.0), noise(30.0)])
    long, short = inputs["input_ids"].tolist()
    # The bytes behind 100 control tokens; recorded from mistral-common 1.13.1 on this tokenizer.
    question = [168, 201, 215, 199, 214, 205, 198, 201, 132, 205, 216, 144, 132, 215, 201, 295, 277]
    question += [211, 214, 146, 132, 191, 165, 185, 168, 173, 179, 193]
    assert long == [1, 3, 25, *[24] * 750, *question, 4]
    assert short == [*[11] * 375, 1, 3, 25, *[24] * 375, *question, 4]
    assert inputs["attention_mask"].sum(1).tolist() == [len(long), len(long) - 375]
    assert inputs["input_features"].shape == (3, 16, 3000)


def test_score_is_the_mean_token_probability(folders, flamingo):
    inputs = flamingo._inputs([CLIPS[0]])
    logs = []
    with torch.inference_mode():
        for _ in range(6):
            logits = flamingo.model(**inputs).logits[0, -1].log_softmax(0)
            token = int(logits.argmax())
            logs.append(float(logits[token]))
            extra = torch.tensor([[token]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], extra], 1)
            mask = inputs["attention_mask"]
            inputs["attention_mask"] = torch.cat([mask, torch.ones_like(extra)], 1)
    [[mine]] = flamingo.caption_waveforms([CLIPS[0]], short(flamingo))
    assert mine.score == pytest.approx(float(np.exp(np.mean(logs))), rel=1e-3)


def test_prompt_changes_what_is_asked(folders, flamingo):
    other = AudioLanguageCaptioner.load(
        str(folders["audioflamingo3"]), options=AdapterOptions(prompt="What is it?")
    )
    assert "What is it?" in other._text
    [[mine]] = flamingo.caption_waveforms([CLIPS[0]], short(flamingo))
    [[theirs]] = other.caption_waveforms([CLIPS[0]], short(other))
    assert mine.score != theirs.score


def test_n_best_and_sampling_follow_the_settings(flamingo):
    [row] = flamingo.caption_waveforms([CLIPS[0]], short(flamingo, n_best=3, beam_size=4))
    assert len(row) == 3
    assert [c.score for c in row] == sorted((c.score for c in row), reverse=True)
    sampled = short(flamingo, sample=True, temperature=2.0)
    first, again = (flamingo.caption_waveforms([CLIPS[0]], sampled) for _ in range(2))
    assert first == again


def test_long_sounds_are_cut_like_those_of_any_captioner(flamingo):
    settings = CaptionSettings(Windows(1.0, 1.0, 1.5), decoding=short(flamingo))
    segments = caption_segments(flamingo, (noise(4.0), 16_000), settings)
    assert (segments[0].start, segments[-1].end) == (0.0, 4.0)


def test_model_of_the_hub_is_found_by_name(folders, tmp_path, monkeypatch):
    publish(offline(tmp_path, monkeypatch), "ada/tiny-audio", folders["qwen2_audio"])
    captioner = Captioner.load("hf:ada/tiny-audio")
    assert captioner.name == "hf:ada/tiny-audio"
    assert captioner.max_seconds == 30


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_quantized_weights_are_small(folders, quantize):
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    options = AdapterOptions(quantize=quantize)
    captioner = AudioLanguageCaptioner.load(str(folders["qwen2_audio"]), options=options)
    plain = AudioLanguageCaptioner.load(str(folders["qwen2_audio"]))
    [[caption]] = captioner.caption_waveforms([CLIPS[0]], short(captioner))
    assert 0 < caption.score < 1
    assert captioner.model.get_memory_footprint() < 0.8 * plain.model.get_memory_footprint()


def test_quantization_without_bitsandbytes_is_one_sentence(folders, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match="--quantize nf4 needs bitsandbytes: .*pip install"
    ):
        AudioLanguageCaptioner.load(
            str(folders["qwen2_audio"]), options=AdapterOptions(quantize="nf4")
        )


def test_without_torch_nothing_is_fetched_first(monkeypatch):
    monkeypatch.setattr("earwitness.captioning.captioner.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="hf:nowhere/at-all needs torch: .*train"):
        ModelChoice("hf:nowhere/at-all").fingerprint(False)


def changed(folder: Path, to: Path, **config) -> str:
    shutil.copytree(folder, to)
    settings = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(settings))
    return f"hf:{to}"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "gemma9", "auto_map": {"AutoModel": "own.py"}}, "type 'gemma9'; expected"),
        ({"model_type": "whisper"}, "expected one of audioflamingo3, qwen2_audio, voxtral"),
        ({"audio_token_index": 2**30}, "audio_token_index is 1073741824; expected at most"),
    ],
)
def test_other_kinds_and_damage_are_one_sentence(folders, tmp_path, config, sentence):
    name = changed(folders["qwen2_audio"], tmp_path / "x", **config)
    with pytest.raises(CheckpointError, match=sentence):
        Captioner.load(name)


def test_missing_model_and_options_of_other_models_are_refused():
    with pytest.raises(CheckpointError, match="nowhere/at-all"):
        Captioner.load("hf:nowhere/at-all")
    with pytest.raises(ConfigError, match="applies to hf: and openai: models only"):
        open_captioner("pocket-lamb", options=AdapterOptions(prompt="Well?"))


def test_training_and_events_say_why_they_cannot(folders):
    from earwitness.captioning.captioner import sound_classes
    from earwitness.models.names import model_folder

    for refuse in (model_folder, sound_classes):
        with pytest.raises(CheckpointError, match="audio_language of earwitness train fine-tunes"):
            refuse("hf:ada/tiny-audio")


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A dog barks.", "A dog barks."),
        ('\n "A dog\tbarks."\nI hope this helps!', "A dog barks."),
        ("“A dog barks.”", "A dog barks."),
        ("", ""),
    ],
)
def test_answers_become_captions(answer, caption):
    assert as_caption(answer) == caption
