"""Fine-tuning a finished captioner on a table of one's own clips: the recipe, the commands, and
the benchmark's reading of captions.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data_sets import prepared, write_csv
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.errors import CheckpointError
from earwitness.models.names import model_folder
from earwitness.models.weights import read_json
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.lamb import LambRecipe
from earwitness.training.stages import read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "finetune_pocket.toml"
HOUSE_STYLE = {"low": "the pump is running", "hiss": "steam is leaking"}


@pytest.fixture(scope="module")
def domain():
    """The module of the benchmark."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        path = ROOT / "benchmarks" / "finetune_domain.py"
        spec = importlib.util.spec_from_file_location("finetune_domain", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def clip(kind: str, number: int) -> np.ndarray:
    """A low tone or noise, a little different each time."""
    rng = np.random.default_rng((number, len(kind)))
    times = np.arange(12000) / 16000
    hiss = 0.1 * rng.standard_normal(len(times))
    tone = 0.3 * np.sin(2 * np.pi * (120 + 5 * number) * times)
    return (hiss if kind == "hiss" else tone + 0.02 * hiss).astype(np.float32)


@pytest.fixture
def mine(tmp_path):
    """A prepared table of synthetic clips, split by recording."""
    rows: list[list[object]] = []
    for number in range(12):
        for kind, text in HOUSE_STYLE.items():
            name = f"{kind}-{number}.wav"
            soundfile.write(tmp_path / name, clip(kind, number), 16000)
            rows.append([name, f"{kind}{number // 2}", text])
    table = write_csv(tmp_path / "list.csv", ["audio", "recording", "caption"], rows)
    prepared(
        "csv", table, "-o", tmp_path / "mine.csv", "--group-column", "recording",
        "--random-split", "0.2",
    )  # fmt: skip
    return tmp_path


def test_recipe_starts_from_the_shipped_model_and_fits_it():
    recipe = read_recipe(RECIPE)
    shipped = read_json(model_folder("pocket-lamb") / "earwitness.json")["config"]
    ours = recipe.model.model_dump(mode="json")
    assert str(recipe.init) == "pocket-lamb"
    assert ours["prefix"] == shipped["prefix"]


def test_unknown_model_to_go_on_from_is_refused(mine):
    recipe = read_recipe(RECIPE, ["init='pocket-lamp'"])
    assert isinstance(recipe, LambRecipe)
    with pytest.raises(CheckpointError, match="pocket-lamp: no such"):
        recipe.prepare(mine / "runs" / "x")


def test_house_style_is_learnt_by_the_documented_command(mine):
    sources = [f"source.{side}={mine}/mine.{side}.csv" for side in ("train", "validation")]
    loop = ["epochs=7", "batch_size=5", "learning_rate=1e-3", "validate_every=7"]
    changes = [*sources, *(f"fit.{change}" for change in loop), "validation.metrics=['cider_d']"]
    words = [word for change in changes for word in ("--set", change)]
    done = CliRunner().invoke(app, ["train", str(RECIPE), "--run", str(mine / "tuned"), *words])
    assert done.exit_code == 0, done.output
    heard = [(clip(kind, 70 + n), 16000) for kind in HOUSE_STYLE for n in range(2)]
    wanted = [text for text in HOUSE_STYLE.values() for _ in range(2)]
    before, after = (
        [one.text for one in TorchCaptioner.load(model).caption_batch(heard)]
        for model in ("pocket-lamb", mine / "tuned" / "best")
    )
    assert not set(before) & set(wanted)
    assert after == wanted


def test_every_sentence_of_the_domain_names_its_kind_alone(domain):
    for label, sentences in domain.SENTENCES.items():
        for text in sentences:
            assert domain.named(text, label, alone=True), text


def test_caption_of_two_kinds_names_neither_alone(domain):
    text = "A dog barks while water runs"
    assert domain.named(text, "dog_barking", alone=False)
    assert not domain.named(text, "dog_barking", alone=True)
    assert not domain.named("a category of doorways", "cat_meowing", alone=False)


def test_domain_keeps_recordings_on_one_side(domain, tmp_path):
    rows: list[list[object]] = []
    (tmp_path / "sounds").mkdir()
    for label in ("siren", "snoring"):
        for number in range(30):
            name = f"{label}{number}.wav"
            soundfile.write(tmp_path / "sounds" / name, clip("hiss", number), 16000)
            rows.append([name, label, 0.75, f"{label}-{number // 3}"])
    write_csv(tmp_path / "sounds" / "manifest.csv", ["path", "label", "seconds", "recording"], rows)
    domain.build_domain(tmp_path / "sounds", tmp_path / "out")
    sides = []
    for name in ("clips", "test"):
        lines = domain.read_clips(tmp_path / "out" / f"{name}.csv")
        text = (tmp_path / "out" / f"{name}.csv").read_text()
        sides.append({row.split(",")[1] for row in text.splitlines()[1:]})
        assert all(one.captions[0] in sum(domain.SENTENCES.values(), ()) for one in lines)
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    shutil.rmtree(tmp_path / "out")
