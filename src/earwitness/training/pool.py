"""Rows prepared once on disk by several processes, so that training runs at full speed; continues
where it stopped.

A pool is a folder of memory-mapped arrays with one row per item, built in blocks. What a row holds
is up to a row maker: a picklable class with `shapes()` and a call from index to arrays.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

from earwitness.errors import TrainingError
from earwitness.models.weights import read_json, write_json
from earwitness.training.progress import tracked

BLOCK = 100
"""rows made at a time"""

Shapes = dict[str, tuple[tuple[int, ...], str]]
"""array name -> (shape of a row, NumPy type)"""


@runtime_checkable
class RowMaker(Protocol):
    """Makes rows; it is sent to worker processes, so it holds settings, and loads what it needs in
    `open`.
    """

    def shapes(self) -> Shapes:
        """Names, shapes and types of the arrays of a row."""
        ...

    def open(self) -> "RowSource":
        """Loads what is needed to make rows, once per process."""
        ...


@runtime_checkable
class RowSource(Protocol):
    """Index to row."""

    def __call__(self, index: int) -> dict[str, np.ndarray]: ...


class Pool(Dataset[dict[str, np.ndarray]]):
    """The rows of a finished pool; an item is asked for as (index, epoch), as the training loop
    does.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        return {name: np.array(array[key[0]]) for name, array in self.arrays.items()}


def build_pool(folder: Path, size: int, maker: RowMaker, workers: int = 0) -> Pool:
    """The pool of `size` rows in `folder`; only blocks that are missing are made.

    Raises:
        TrainingError: `folder` holds a pool of another size or of other settings.
    """
    shapes = maker.shapes()
    identity = {"size": size, "maker": hashlib.sha256(repr(maker).encode()).hexdigest()[:16]}
    if (folder / "pool.json").exists():
        if read_json(folder / "pool.json") != identity:
            raise TrainingError(
                f"{folder} contains a pool made with other settings; delete it or name another run"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (shape, kind) in shapes.items():
            path = folder / f"{name}.npy"
            np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(size, *shape)).flush()
        write_json(folder / "pool.json", identity)
    done = {int(path.stem) for path in folder.glob("*.done")}
    missing = [block for block in range(-(-size // BLOCK)) if block not in done]
    if missing:
        _make_blocks(folder, size, maker, missing, workers or os.cpu_count() or 1)
    return Pool(folder, list(shapes))


def _make_blocks(folder: Path, size: int, maker: RowMaker, blocks: list[int], workers: int) -> None:
    if len(blocks) == 1:
        # Another process would take seconds to import what is here already.
        with _as_in_a_worker():
            _fill(folder, blocks[0], size, maker, maker.open())
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_make_block, folder, block, size, maker) for block in blocks]
        for future in tracked(
            as_completed(futures), f"preparing {folder.name}", total=len(futures)
        ):
            future.result()


@contextmanager
def _as_in_a_worker() -> Generator[None]:
    """One thread, so that rows are the same numbers either way, and no draw from the caller's
    random numbers.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _opened(maker: RowMaker) -> RowSource:
    import torch

    torch.set_num_threads(1)
    return maker.open()


def _make_block(folder: Path, block: int, size: int, maker: RowMaker) -> None:
    _fill(folder, block, size, maker, _opened(maker))


def _fill(folder: Path, block: int, size: int, maker: RowMaker, make: RowSource) -> None:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in maker.shapes()}
    for index in range(block * BLOCK, min(size, (block + 1) * BLOCK)):
        for name, value in make(index).items():
            arrays[name][index] = value
    for array in arrays.values():
        array.flush()
    (folder / f"{block}.done").touch()
