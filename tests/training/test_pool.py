"""Pools: rows made once, by several processes, gone on with after a stop."""

from dataclasses import dataclass

import numpy as np
import pytest

from earwitness.errors import TrainingError
from earwitness.training.pool import BLOCK, build_pool


@dataclass(frozen=True)
class Squares:
    """Row i holds i squared; `power` is a setting."""

    power: int = 2

    def shapes(self):
        return {"value": ((2,), "float32"), "name": ((), "S8")}

    def open(self):
        return lambda i: {"value": np.full(2, i**self.power), "name": np.array(f"row{i}".encode())}


def test_pool_holds_every_row(tmp_path):
    pool = build_pool(tmp_path / "p", BLOCK + 30, Squares(), workers=2)
    assert len(pool) == BLOCK + 30
    assert pool[(17, 5)]["value"].tolist() == [289.0, 289.0]
    assert pool[(BLOCK + 29, 0)]["name"].item() == f"row{BLOCK + 29}".encode()


def test_pool_makes_only_missing_blocks(tmp_path):
    build_pool(tmp_path / "p", 2 * BLOCK, Squares(), workers=1)
    (tmp_path / "p" / "1.done").unlink()
    values = np.load(tmp_path / "p" / "value.npy", mmap_mode="r+")
    values[:] = -1
    values.flush()
    pool = build_pool(tmp_path / "p", 2 * BLOCK, Squares(), workers=1)
    assert pool[(0, 0)]["value"][0] == -1
    assert pool[(BLOCK, 0)]["value"][0] == BLOCK**2


def test_pool_of_other_settings_is_refused(tmp_path):
    build_pool(tmp_path / "p", 10, Squares(), workers=1)
    with pytest.raises(TrainingError, match="other settings"):
        build_pool(tmp_path / "p", 10, Squares(power=3), workers=1)
    with pytest.raises(TrainingError, match="other settings"):
        build_pool(tmp_path / "p", 11, Squares(), workers=1)
