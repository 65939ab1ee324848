"""The batch that a GPU holds, on a stand-in that runs out of memory above a number of clips."""

import contextlib

import fit_parts
import numpy as np
import pytest
import torch
from builders import tiny_decoder
from fit_parts import Sums, collate
from torch import nn

from earwitness.errors import ConfigError, TrainingError
from earwitness.models.weights import read_json
from earwitness.training import memory
from earwitness.training.memory import checkpointed, fitted_to_memory
from earwitness.training.settings import FitConfig

pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda':UserWarning")


class Model(nn.Module):
    """Holds a language model, and runs out of memory above `room` rows; twice as many where it
    computes its layers anew.
    """

    def __init__(self, room, with_decoder=True):
        super().__init__()
        self.room, self.line = room, nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4)
        self.language_model = tiny_decoder().model if with_decoder else None
        self.seen = []

    def forward(self, batch):
        again = any(getattr(m, "gradient_checkpointing", False) for m in self.modules())
        self.seen.append(sorted(batch["y"].tolist()))
        if len(batch["x"]) > self.room * (2 if again else 1):
            raise torch.OutOfMemoryError
        return {"square": self.line(self.norm(batch["x"])).square().mean()}


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """A GPU that is the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(nn.Module, "cuda", lambda self, *_: self)
    monkeypatch.setattr(memory, "DEVICE", "cpu")


def found(model, tmp_path, data=None, **changes):
    config = FitConfig(**{**fit_parts.SETTINGS, "batch_size": 16, "fit_memory": True, **changes})
    return fitted_to_memory(model, data or Sums(size=40), collate, {}, config, tmp_path)


@pytest.mark.parametrize(
    ("room", "batch_size", "accumulate", "again"),
    [(16, 16, 1, False), (8, 16, 1, True), (7, 8, 2, True), (1, 2, 8, True)],
)
def test_checkpointing_comes_first_and_the_product_stays(
    room, batch_size, accumulate, again, tmp_path
):
    model = Model(room)
    config = found(model, tmp_path)
    assert (config.batch_size, config.accumulate) == (batch_size, accumulate)
    assert checkpointed(model) is not again
    assert read_json(tmp_path / "memory.json") == {
        "batch_size": batch_size,
        "accumulate": accumulate,
        "checkpointing": again,
    }


def test_a_resumed_run_takes_what_was_found_and_tries_nothing(tmp_path):
    found(Model(7), tmp_path)
    model = Model(0)
    assert found(model, tmp_path).batch_size == 8
    assert model.seen == []
    assert not checkpointed(model)


def test_the_longest_items_are_tried_and_a_trial_leaves_no_trace(tmp_path):
    data = Sums(size=40)
    data.lengths = np.arange(40.0) % 37
    model = Model(16)
    before = {name: value.clone() for name, value in model.named_buffers()}
    found(model, tmp_path, data)
    longest = sorted(float(data[(int(i), 0)][1]) for i in np.argsort(-data.lengths)[:16])
    assert model.seen == [pytest.approx(longest)]
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert model.line.weight.grad is None


def test_where_not_even_one_clip_fits_that_is_said(tmp_path):
    with pytest.raises(TrainingError, match="batches of 1 clips do not fit the GPU"):
        found(Model(0, with_decoder=False), tmp_path)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="fit_memory tries batches in one process"):
        found(Model(4), tmp_path)


def test_without_a_gpu_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", contextlib.nullcontext(False).__enter__)
    model = Model(0)
    assert found(model, tmp_path).batch_size == 16
    assert model.seen == []
