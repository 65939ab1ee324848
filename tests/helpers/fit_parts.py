"""A tiny training problem: a network with dropout learns a sum, from data that may stop the run."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from earwitness.training.fit import fit
from earwitness.training.settings import FitConfig, Selection


class Stopped(Exception):
    """Stands for a kill: raised where the process would have ended."""


class Sums(Dataset):
    """Vectors and their sums, other ones each epoch; `stop_at` ends the run at an item."""

    def __init__(self, size=22, stop_at=None, really=False):
        self.size, self.stop_at, self.really = size, stop_at, really
        self.asked = []

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        self.asked.append(key)
        if self.stop_at is not None and len(self.asked) > self.stop_at:
            if self.really:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stopped
        generator = torch.Generator().manual_seed(1000 * key[1] + key[0])
        x = torch.randn(4, generator=generator)
        return x, x.sum()


def collate(rows):
    return {"x": torch.stack([x for x, _ in rows]), "y": torch.stack([y for _, y in rows])}


class Network(nn.Module):
    """Dropout makes its losses depend on torch's random numbers, batch norm on its buffers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )

    def forward(self, batch):
        found = self.body(batch["x"])[:, 0]
        return {"square": (found - batch["y"]).square().mean(), "size": found.square().mean()}


def save(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pt")


def validate(model):
    held_out = collate([Sums()[(i, 99)] for i in range(20)])
    device = next(model.parameters()).device
    held_out = {name: value.to(device) for name, value in held_out.items()}
    return {"square": float(model(held_out)["square"].detach())}


LOWEST = Selection("square", "lowest")
SETTINGS = {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "warmup_epochs": 0.5}


def train(run, data=None, weights=None, validate=validate, select=LOWEST, **changes):
    """`fit` on this problem, as a fresh process would run it."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config = FitConfig(**{**SETTINGS, "save_every": 2, **changes})
    return fit(
        Network(),
        Sums() if data is None else data,
        collate,
        {"size": 0.01} if weights is None else weights,
        config,
        Path(run),
        validate=validate,
        save=save,
        select=select,
    )


if __name__ == "__main__":
    train(sys.argv[1], Sums(stop_at=int(sys.argv[2]), really=True))
