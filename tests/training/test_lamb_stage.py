"""Stage `lamb`: what validation scores and chooses by, captions without words, models to go on
from.
"""

import json
import math
from pathlib import Path

import pytest
import soundfile
import torch
from builders import noise, tiny_captioner, tiny_model_folder
from data_sets import write_csv

from earwitness.errors import ConfigError, DataError
from earwitness.evaluation import evaluate
from earwitness.lamb.token_guide import TokenGuideConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.system.settings import CaptionerConfig
from earwitness.training.batches import validation_batches
from earwitness.training.lamb import LAMB_LOSSES, LambTraining
from earwitness.training.lamb_validation import ValidationConfig, selection, validate_lamb
from earwitness.training.settings import Selection
from earwitness.training.source import Opening
from earwitness.training.sources import ManifestSource, collate
from earwitness.training.stages import run_recipe
from earwitness.training.starting_model import check_same_model

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny.toml"
CIDER = ValidationConfig(metrics=("cider_d",))


def manifest(path: Path, captions: list[list[str]]) -> Path:
    """Clips of noise with these captions."""
    rows: list[list[object]] = []
    for index, texts in enumerate(captions):
        name = f"{path.stem}{index}.wav"
        soundfile.write(path.parent / name, noise(0.5, index), 16000)
        rows.append([f"clip{index}", name, *texts])
    count = max(map(len, captions))
    header = ["id", "audio", *(f"caption_{n + 1}" for n in range(count))]
    return write_csv(path, header, rows)


def trained(folder: Path, train: Path, validation: Path, *changes: str) -> dict[str, float]:
    """The scores of one short run of the tiny recipe on these clips."""
    short = [
        "fit.epochs=1",
        "fit.batch_size=4",
        "fit.trackers=[]",
        "validation.metrics=['cider_d']",
    ]
    source = ["source.kind=manifest", f"source.train={train}", f"source.validation={validation}"]
    return run_recipe(TINY, folder, [*source, *short, *changes])


@pytest.fixture
def clips(tmp_path):
    texts = ["a dog barks", "rain falls", "a man speaks", "a bell rings", "wind blows"]
    return manifest(tmp_path / "clips.csv", [[text, f"{text} loudly"] for text in texts])


def test_a_caption_without_words_is_named_once_and_training_goes_on(tmp_path, clips, capfd):
    train = manifest(tmp_path / "train.csv", [["a dog barks"], ["!!!"], ["rain falls"], ["..."]])
    scores = trained(tmp_path / "run", train, clips, "fit.epochs=2")
    assert all(math.isfinite(value) for value in scores.values())
    log = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["cs_token"]) for row in log if "cs_token" in row)
    said = [line for line in capfd.readouterr().err.splitlines() if "has no word" in line]
    assert len(said) == 1
    assert "clip 'clip1': its caption '!!!'" in said[0]
    assert "2 of 4 captions" in said[0]


def test_a_validation_set_of_one_clip_chooses_by_the_loss_and_says_so(tmp_path, clips, capfd):
    one = manifest(tmp_path / "one.csv", [["a dog barks"]])
    scores = trained(tmp_path / "run", clips, one)
    assert "cider_d" not in scores
    assert math.isfinite(scores["decode"])
    assert (tmp_path / "run" / "best" / "earwitness.json").is_file()
    assert "holds one clip, for which CIDEr-D is not defined" in capfd.readouterr().err


def test_captions_are_scored_against_all_references(clips):
    source = ManifestSource(kind="manifest", train=clips, validation=clips)
    items = source.open(Opening(None, 16000, clips.parent, 0)).validation
    model = LambTraining(tiny_captioner(), 0.0, blind=False).eval()
    with torch.inference_mode():
        found = validate_lamb(model.captioner, model, items, CIDER)
        greedy = model.captioner.config.decoding.model_copy(update={"beam_size": 1})
        captions = []
        for batch, _ in validation_batches(items, collate, torch.device("cpu"), 50):
            z_a = model.captioner.audio_tokens(model.frames(batch))
            captions += [row[0].text for row in model.captioner.generate(z_a, greedy)]
    texts = ["a dog barks", "rain falls", "a man speaks", "a bell rings", "wind blows"]
    references = [[text, f"{text} loudly"] for text in texts]
    expected = evaluate(captions, references, metrics=["cider_d"], resamples=0)
    assert found["cider_d"] == pytest.approx(expected.corpus["cider_d"].value)
    assert items.references == references
    assert {"gap_margin", "gap_centered", "mean_caption_cosine", "other_caption_margin"} <= set(
        found
    )
    assert found["other_caption_margin"] > 0.0


def test_the_choice_of_the_best_weights_may_be_a_loss_or_a_score():
    items = [0, 1, 2]
    assert selection(CIDER, LAMB_LOSSES, items) == Selection("cider_d", "highest")
    by_loss = ValidationConfig(select="guide")
    assert selection(by_loss, LAMB_LOSSES, items) == Selection("guide", "lowest")
    with pytest.raises(
        ConfigError, match="validation.select: 'fense' cannot be computed here: no "
    ):
        selection(ValidationConfig(select="fense"), LAMB_LOSSES, items)
    with pytest.raises(DataError, match="fence"):
        selection(ValidationConfig(select="fence"), LAMB_LOSSES, items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prefix": TwoStreamConfig(n_semantic=2, n_temporal=2, n_global=4, heads=4)},
            r"model.prefix.heads is 4, .* has 2, .*set model.prefix.heads = 2",
        ),
        ({"guide": TokenGuideConfig(metric="l1")}, 'model.guide.metric is "l1", .* has "l2"'),
        ({"guide": None}, 'model.guide is "off", .* has "on"'),
        ({"aligner": None}, 'model.aligner is "off", .* has "on"'),
    ],
)
def test_a_model_whose_weights_would_mean_something_else_is_refused(tmp_path, change, message):
    folder = tiny_model_folder(tmp_path / "model")
    config = tiny_captioner().config
    check_same_model(config, folder)
    with pytest.raises(ConfigError, match=message):
        check_same_model(config.model_copy(update=change), folder)


def test_dropout_and_decoding_may_differ_from_the_model_to_go_on_from(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    config = tiny_captioner().config
    changed = CaptionerConfig.model_validate(
        {
            **config.model_dump(),
            "prefix": {**config.prefix.model_dump(), "dropout": 0.3},
            "guide": {"beta": 0.7},
            "label_smoothing": 0.1,
        }
    )
    check_same_model(changed, folder)


def test_training_from_a_model_with_other_heads_is_refused_by_the_recipe(tmp_path, clips):
    folder = tiny_model_folder(tmp_path / "model")
    prompt = "model.decoder.instruction='Please describe the audio.'"
    with pytest.raises(ConfigError, match=r"model\.prefix\.heads is 4"):
        trained(tmp_path / "run", clips, clips, f"init={folder}", prompt)
