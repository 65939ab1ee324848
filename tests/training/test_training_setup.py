"""Recipes: one key for data, known losses; the loop: trackers, buckets; refusals in a sentence."""

import importlib
import json
import sys
from pathlib import Path

import fit_parts
import numpy as np
import pytest
from fit_parts import Sums, train

from earwitness.errors import ConfigError
from earwitness.training.stages import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize(
    ("recipe", "read"),
    [
        ("pocket_lm.toml", lambda r: r.data),
        ("pocket_encoder.toml", lambda r: r.data),
        ("pocket_lamb.toml", lambda r: r.source.folder),
        ("pocket_clap.toml", lambda r: r.source.folder),
        ("pocket_bridge.toml", lambda r: r.source.folder),
        ("pocket_link_supervised.toml", lambda r: r.source.folder),
    ],
)
def test_data_is_one_key_for_all_stages(recipe, read, tmp_path):
    path = RECIPES / recipe
    assert read(read_recipe(path)) == Path("data")
    assert read(read_recipe(path, ["data=there"])) == Path("there")
    assert read(read_recipe(path, [], tmp_path)) == tmp_path


def test_data_for_a_source_that_reads_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'data' is the folder of .*scenes.*'synthetic'"):
        read_recipe(RECIPES / "tiny.toml", [], tmp_path)


@pytest.mark.parametrize(
    ("recipe", "wrong", "near"),
    [
        ("tiny.toml", "cs_globl", "cs_global"),
        ("tiny.toml", "infoNCE", "infonce"),
        ("pocket_encoder.toml", "embeding", "embedding"),
    ],
)
def test_a_misspelt_loss_names_the_nearest(recipe, wrong, near):
    with pytest.raises(ConfigError, match=rf"unknown loss 'losses.{wrong}'; did you mean '{near}'"):
        read_recipe(RECIPES / recipe, [f"losses.{wrong}=0.5"])


def test_lengths_that_are_not_known_cannot_be_bucketed(tmp_path):
    with pytest.raises(ConfigError, match=r"fit\.bucket: the lengths of these items are not known"):
        train(tmp_path, bucket=2)


def test_bucketed_runs_resume_exactly(tmp_path):
    def measured(**changes):
        data = Sums(**changes)
        data.lengths = np.arange(22.0) % 7
        return data

    train(tmp_path / "unbroken", measured(), bucket=2)
    with pytest.raises(fit_parts.Stopped):
        train(tmp_path / "stopped", measured(stop_at=33), bucket=2)
    train(tmp_path / "stopped", measured(), bucket=2)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("unbroken", "stopped")]
    listed = [[{**json.loads(r), "time": 0} for r in log.splitlines()] for log in logs]
    assert listed[0] == listed[1]


def test_a_tracker_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'wandb', which is not installed: pip install wandb"):
        train(tmp_path, trackers=("wandb",))


WANDB = """
import json, os
class Run:
    def __init__(self, **given): self.note({"init": given, "mode": os.environ.get("WANDB_MODE")})
    def note(self, row):
        with open(os.environ["WANDB_NOTES"], "a") as file:
            file.write(json.dumps(row) + "\\n")
    def log(self, values, step=None, **_): self.note({"step": step, **values})
    def finish(self): self.note({"finished": True})
def init(**given): return Run(**given)
"""


def test_wandb_hears_every_loss_once_under_its_own_mode(tmp_path, monkeypatch):
    """A module that writes down its calls stands in for the service's client."""
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_NOTES", str(tmp_path / "notes.jsonl"))
    importlib.invalidate_caches()
    train(tmp_path / "run", epochs=1, trackers=("wandb", "tensorboard"))
    monkeypatch.delitem(sys.modules, "wandb")
    notes = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()]
    assert notes[0]["init"]["project"] == "earwitness"
    assert notes[0]["init"]["name"] == "run"
    assert notes[0]["mode"] == "offline"
    assert [row["step"] for row in notes if "square" in row] == [1, 2, 3, 4, 5]
    assert any("validation/square" in row for row in notes)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_run_of_an_older_version_goes_on(tmp_path):
    """Settings that did not exist when it began are taken as their defaults."""
    train(tmp_path, epochs=1)
    place = tmp_path / "checkpoint" / "progress.json"
    progress = json.loads(place.read_text())
    for name in ("shard", "bucket", "processes"):
        del progress["settings"][name]
    place.write_text(json.dumps(progress))
    train(tmp_path, epochs=2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "total" in row] == list(range(1, 11))


def test_a_frozen_weight_is_not_in_the_checkpoint(tmp_path):
    import torch

    class Half(fit_parts.Network):
        def __init__(self):
            super().__init__()
            self.body[0].requires_grad_(False)

    config = fit_parts.FitConfig(**fit_parts.SETTINGS, trackers=())
    fit_parts.fit(
        Half(), Sums(), fit_parts.collate, {}, config, tmp_path,
        validate=fit_parts.validate, save=fit_parts.save, select=fit_parts.LOWEST,
    )  # fmt: skip
    state = torch.load(tmp_path / "checkpoint" / "pytorch_model.bin", weights_only=True)
    assert "body.0.weight" not in state
    assert {"body.4.weight", "body.1.running_mean"} <= state.keys()
