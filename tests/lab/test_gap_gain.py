"""The study of gain against the gap, at the size of a test: spaces, offsets, cells, tables."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import SENTENCES
from link_parts import LLAMA, untrained_link

from earwitness.models.llama import LlamaSize
from earwitness.training.embeddings import Pairs
from earwitness.training.parts import new_language_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def study_parts() -> tuple[Any, ...]:
    sys.path.insert(0, str(BENCHMARKS))
    names = ("gap_spaces", "gap_gain", "gap_report", "gap_equal")
    found = tuple(map(importlib.import_module, names))
    sys.path.remove(str(BENCHMARKS))
    return found


@pytest.fixture
def world(study_parts, tmp_path) -> Any:
    """Sounds that are noise of a kind per sentence, with three sentences per recording."""
    spaces = study_parts[0]
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(len(SENTENCES), 48))

    def sounds(count: int, several: int) -> Any:
        rows = rng.integers(len(SENTENCES), size=count)
        frames = (kinds[rows, None] + rng.normal(size=(count, 6, 48))).astype(np.float16)
        owner = np.repeat(np.arange(count), several)
        captions = [SENTENCES[rows[n]] for n in owner]
        return spaces.Sounds(frames, np.full(count, 6), owner, captions)

    world = spaces.World(tmp_path, tmp_path)
    world.captioner = untrained_link()
    sets = {"train": (60, 1), "validation": (12, 1), "scenes": (10, 1), "recordings": (8, 3)}
    world.sets = {name: sounds(*sizes) for name, sizes in sets.items()}
    (tmp_path / "pool").mkdir()
    return world


@pytest.fixture
def study(study_parts, world, tmp_path, monkeypatch) -> Any:
    spaces, gain = study_parts[:2]
    for name, value in {
        "LEVELS": (spaces.Level("0.3", 0.07, 32, 10),),
        "UPDATES": 5, "BATCH": 16, "LEARNED": 5, "TOGETHER": 16, "OFFSETS": (0.8,),
    }.items():  # fmt: skip
        monkeypatch.setattr(gain, name, value)
    return gain.Study(world, tmp_path / "cells")


@pytest.fixture
def equal_study(study_parts, world, study, tmp_path, monkeypatch) -> Any:
    """A study at 30 and 60 pairs, whose full recipe is one epoch of an untrained language model."""
    equal = study_parts[3]
    sizes = {"LEARNED": 5, "CHECKPOINTS": (3, 6), "NOISE_SEEDS": 2, "PAIRS": (30, 60)}
    for name, value in sizes.items():
        monkeypatch.setattr(equal, name, value)
    monkeypatch.setattr(equal, "LEVELS", study_parts[1].LEVELS)
    tokenizer, model = new_language_model(LlamaSize(**LLAMA), SENTENCES)
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "pocket_lm" / "best" / "decoder")
    monkeypatch.setattr(equal, "run_recipe", lambda *_: None)
    settings = equal.read_recipe

    def short(path: Path, keys: list[str], data: Path) -> Any:
        # Accelerate keeps the precision of a process's first training.
        small = ["fit.epochs=1", "fit.batch_size=16", 'fit.precision="fp32"', "hidden=16"]
        return settings(path, [*keys, *small, "decoding.max_new_tokens=6"], data)

    monkeypatch.setattr(equal, "read_recipe", short)
    return equal.EqualStudy(world, tmp_path / "equal")


def random_space(spaces: Any, clips: int = 40) -> Any:
    rng = np.random.default_rng(1)
    audio, text = (rng.normal(size=(n, 16)) + s for n, s in ((clips, 0.0), (2 * clips, 0.4)))
    audio, text = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (audio, text)
    )
    owner = np.repeat(np.arange(clips), 2)
    return spaces.Space({"train": Pairs(audio, text, owner, [""] * len(text))})


def test_the_gap_of_a_space_is_that_of_loops_over_its_clips(study_parts) -> None:
    space = random_space(study_parts[0])
    pairs, found = space.pairs["train"], space.gap()
    texts = np.stack([pairs.text[pairs.owner == n].mean(0) for n in range(40)])
    distance = np.linalg.norm(pairs.audio.mean(0) - texts.mean(0))
    assert found["centroid_distance"] == pytest.approx(distance, rel=1e-5)
    cosines = [np.mean(pairs.text[pairs.owner == n] @ pairs.audio[n]) for n in range(40)]
    assert found["paired_cosine"] == pytest.approx(np.mean(cosines), rel=1e-5)


@pytest.mark.parametrize("distance", [0.7, 0.9])
def test_an_offset_makes_the_gap_that_is_asked_for(study_parts, distance: float) -> None:
    spaces = study_parts[0]
    space = random_space(spaces)
    assert space.gap()["centroid_distance"] < distance
    moved = space.moved(spaces.offset_to(space, distance))
    assert moved.gap()["centroid_distance"] == pytest.approx(distance, abs=1e-3)
    assert np.linalg.norm(moved.pairs["train"].audio, axis=1) == pytest.approx(np.ones(40))


def test_captions_of_one_plan_are_averaged(study_parts, study) -> None:
    gain = study_parts[1]
    space = random_space(study_parts[0])
    found = gain.mean_of_five(space, [[0, 3, 5], [1]]).pairs["train"].text
    text = space.pairs["train"].text
    mean = text[[0, 3, 5]].mean(0)
    assert found[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert found[1] == pytest.approx(text[1], abs=1e-6)
    for rows in study.world.alike:
        own = study.world.sets["train"].captions[rows[0]]
        assert own not in [study.world.sets["train"].captions[row] for row in rows[1:]]


def test_a_study_fills_its_cells_once_and_prints_every_row(
    study_parts, study, tmp_path, capsys, monkeypatch
) -> None:
    _, gain, report, _ = study_parts
    monkeypatch.setattr(report, "DRAWS", 50)
    gain.write_json(study.cells / "references.json", study.references())
    study.level(gain.LEVELS[0], 0)
    assert "gain/0.3+0.8-link-0" in capsys.readouterr().out
    study.level(gain.LEVELS[0], 0)
    assert capsys.readouterr().out == ""
    (study.cells / "gain" / "0.3-text-1.json").write_text("{}")
    text = report.report(study.cells, tmp_path)
    assert (tmp_path / "gap-gain.svg").read_text().startswith("<?xml")
    rows = [line for line in text.splitlines() if line.startswith(("| trained", "| offset"))]
    assert len(rows) == 7 + 6
    for kind in report.STYLES:
        assert sum(f"| {kind} |" in row for row in rows) == (1 if "five" in kind else 2)
    assert all(" |  | " in row for row in rows if "| none |" in row)


def test_bridges_and_captioners_learn_from_equal_pairs(
    study_parts, equal_study, monkeypatch, capsys
) -> None:
    _, gain, report, _ = study_parts
    monkeypatch.setattr(report, "DRAWS", 50)
    gain.write_json(equal_study.cells / "references.json", equal_study.references())
    equal_study.pairs(0)
    equal_study.recipe(0)
    assert "recipe/60-supervised-Diffusion-Link-0" in capsys.readouterr().out
    equal_study.pairs(0)
    equal_study.recipe(0)
    assert "/" not in capsys.readouterr().out
    captions, recipe, updates = (
        [line for line in part.splitlines() if line.startswith(("| 30 |", "| 60 |"))]
        for part in report.equal_report(equal_study.cells).split("## ")[1:]
    )
    assert (len(captions), len(recipe), len(updates)) == (12, 6, 8)
    said = report.rows_of(equal_study.cells, "recipe")
    assert len(said["60/zero-shot/Diffusion-Link"][0]["recordings"]) == 2


def test_a_gain_is_a_ratio_with_the_spread_over_clips_and_seeds(study_parts) -> None:
    report = study_parts[2]
    references = [[f"a {word} rings", f"one {word} is ringing"] for word in "abcdefghij"]
    good = [texts[0] for texts in references]
    half = [text if n % 2 else "nothing" for n, text in enumerate(good)]
    rows = {"x/none": [{"recordings": [half]}] * 3, "x/good": [{"recordings": [good, good]}] * 3}
    found = report.Scores(rows, "recordings", references).gain("x/good", "x/none")
    mine, theirs = (
        report.evaluate(said, references, metrics=["cider_d"]).corpus["cider_d"].value
        for said in (good, half)
    )
    assert found.gain == pytest.approx(100 * (mine / theirs - 1))
    assert found.gain_low < found.gain < found.gain_high
    same = report.Scores(rows, "recordings", references).gain("x/none", "x/none")
    assert (same.gain, same.gain_low, same.gain_high, same.p) == (0, 0, 0, 1)
