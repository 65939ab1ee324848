"""Batches: the order of training items, the loader that reads them, and batches for validation."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from earwitness.errors import ConfigError, TrainingError
from earwitness.training.settings import FitConfig

Collate = Callable[[list[Any]], Any]
"""items to one batch"""


@runtime_checkable
class Measured(Protocol):
    """Data that knows the length of its items, by index."""

    lengths: np.ndarray


@runtime_checkable
class Ordered(Protocol):
    """Data that is read in order, such as a stream: it shuffles by itself."""

    ordered: bool


class EpochBatches:
    """Batches of indices, in a different order each epoch, the same for a given seed and epoch.

    With `weights`, indices are drawn with replacement in proportion to them. With `lengths`, the
    shuffled indices are sorted by length within every `bucket` steps, and the steps shuffled again.
    A step is one batch for each of the `processes`. `ordered` keeps the order.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        weights: Float[np.ndarray, " items"] | None = None,
        lengths: Float[np.ndarray, " items"] | None = None,
        bucket: int = 1,
        processes: int = 1,
        ordered: bool = False,
    ) -> None:
        self.ordered = ordered
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.lengths, self.bucket, self.processes = lengths, bucket, processes
        self.drop_last = True
        self.chances = None if weights is None else weights / weights.sum()
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (index, epoch): a dataset that composes its items needs both."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.ordered:
            order = np.arange(self.size)
        elif self.chances is None:
            order = rng.permutation(self.size)
        else:
            order = rng.choice(self.size, size=self.size, p=self.chances)
        if self.lengths is not None:
            order = self._by_length(order, self.lengths, rng)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(int(i), self.epoch) for i in order[start : start + self.batch_size]]

    def _by_length(
        self, order: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        step = self.batch_size * self.processes
        window = step * self.bucket
        order = np.concatenate(
            [
                part[np.argsort(lengths[part], kind="stable")]
                for part in np.split(order, range(window, len(order), window))
            ]
        )
        whole = len(order) // step * step
        steps = order[:whole].reshape(-1, step)
        return np.concatenate([rng.permutation(steps).ravel(), order[whole:]])


def epoch_batches(
    data: Any,
    config: FitConfig,
    processes: int = 1,
    weights: Float[np.ndarray, " items"] | None = None,
) -> EpochBatches:
    """The order in which the loop reads `data`.

    Raises:
        TrainingError: the data holds fewer items than one step. ConfigError: `fit.bucket` is set
            and the lengths of the items are not known.
    """
    size = len(data)
    if size < config.batch_size * processes:
        each = f" on each of {processes} processes" if processes > 1 else ""
        raise TrainingError(
            f"{size} training items are fewer than one batch of {config.batch_size}{each}; "
            f"set fit.batch_size to {size // processes} or less"
            if size >= processes
            else f"{size} training items are fewer than the {processes} processes; start fewer"
        )
    if config.bucket and not isinstance(data, Measured):
        raise ConfigError(
            "fit.bucket: the lengths of these items are not known, or all the same; "
            "only the clips of a manifest can be grouped by length"
        )
    lengths = data.lengths if config.bucket else None
    ordered = isinstance(data, Ordered) and data.ordered
    return EpochBatches(
        size, config.batch_size, config.seed, weights, lengths, config.bucket, processes, ordered
    )


def training_loader(
    data: Dataset[Any], batches: EpochBatches, collate: Collate, config: FitConfig
) -> Any:
    """The loader that feeds `batches` of `data` to the loop."""
    # Without its own generator each new iterator would draw from the global one, and a resumed
    # epoch would continue with other dropout masks than an uninterrupted one.
    return DataLoader(
        data,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        persistent_workers=config.workers > 0,
        prefetch_factor=config.prefetch if config.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(config.seed),
    )


def validation_batches(
    items: Any,
    collate: Collate,
    device: torch.device,
    batch_size: int,
    rows: Sequence[int] | None = None,
) -> Iterator[tuple[Any, int]]:
    """(batch, number of its items) of all `items` or of its `rows`, in order, on `device`."""
    from accelerate.utils import send_to_device

    chosen = range(len(items)) if rows is None else rows
    for start in range(0, len(chosen), batch_size):
        part = [items[(i, 0)] for i in chosen[start : start + batch_size]]
        yield send_to_device(collate(part), device), len(part)
