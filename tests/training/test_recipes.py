"""Every recipe loads, and the tiny one trains a captioner that hears."""

import json
from pathlib import Path

import pytest

from earwitness.data.synthetic import synthetic_clip
from earwitness.errors import ConfigError
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.stages import read_recipe, run_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize(
    "path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: str(path.relative_to(RECIPES))
)
def test_recipe_loads(path):
    recipe = read_recipe(path)
    assert callable(recipe.prepare)
    assert recipe.stage


def test_unknown_stage_names_the_known_ones(tmp_path):
    (tmp_path / "x.toml").write_text('stage = "lamp"\n')
    with pytest.raises(ConfigError, match="'lamp' is not known; expected one of .*lamb"):
        read_recipe(tmp_path / "x.toml")


def test_unknown_recipe_key_names_the_nearest(tmp_path):
    (tmp_path / "x.toml").write_text(f'base = "{RECIPES}/tiny.toml"\n[fit]\nlearning_rat = 1\n')
    with pytest.raises(ConfigError, match=r"fit\.learning_rat.*did you mean.*learning_rate"):
        read_recipe(tmp_path / "x.toml")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    scores = run_recipe(RECIPES / "tiny.toml", folder)
    return folder, scores


@pytest.mark.slow
def test_tiny_recipe_learns_to_caption_sounds_it_never_heard(tiny_run):
    folder, scores = tiny_run
    captioner = TorchCaptioner.load(folder / "best")
    heard = [synthetic_clip(index, seed=99) for index in range(20)]
    captions = captioner.caption_batch([(clip.waveform, 16000) for clip in heard])
    right = sum(c.text == clip.caption for c, clip in zip(captions, heard, strict=True))
    assert right >= 16
    assert scores["decode"] < 0.5


@pytest.mark.slow
def test_tiny_recipe_pulls_audio_tokens_towards_their_captions(tiny_run):
    folder, _ = tiny_run
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    gaps = [row["validation/gap_cosine"] for row in rows if "validation/gap_cosine" in row]
    assert gaps[-1] > gaps[0]
    assert gaps[-1] > 0.5


@pytest.mark.slow
def test_tiny_recipe_without_audio_cannot_tell_sounds_apart(tmp_path):
    run_recipe(RECIPES / "tiny.toml", tmp_path / "blind", ["blind=true", "fit.epochs=4"])
    rows = [
        json.loads(line) for line in (tmp_path / "blind" / "log.jsonl").read_text().splitlines()
    ]
    scores = [row["validation/decode"] for row in rows if "validation/decode" in row]
    assert min(scores) > 0.2
