"""Bootstrap intervals and paired tests, vectorised: a resample is a row of clip weights.

A corpus score is a function of how often each clip counts. A `Statistic` gives that function; the
value itself is the function at weight 1 for every clip, a bootstrap replicate is the function at
multinomial weights, and a swap of two systems on some clips is the function at weights 0 and 1 over
the clips of both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

_CELLS = 8_000_000


@dataclass(frozen=True)
class Sums:
    """A score that is a `formula` of per-clip `rows` summed over clips."""

    rows: Float[np.ndarray, "clips columns"]
    formula: Callable[[np.ndarray], np.ndarray]
    top: float = np.inf
    recentred: bool = False

    def values(self, weights: Float[np.ndarray, "draws clips"]) -> Float[np.ndarray, " draws"]:
        return self.formula(weights @ self.rows)


@dataclass(frozen=True)
class Coverage:
    """The number of distinct items (words, n-grams, captions) among the weighted clips.

    `items[k]` occurs in clip `clips[k]`. `totals` None counts the items; else they are divided by
    the weighted sum of `totals`. A resample repeats clips and so loses rare items: intervals are
    re-centred on the value, and end at `top`.
    """

    items: Sequence[str]
    clips: Sequence[int]
    totals: Float[np.ndarray, " clips"] | None = None
    scale: float = 1.0
    top: float = np.inf
    recentred: bool = True

    def values(self, weights: Float[np.ndarray, "draws clips"]) -> Float[np.ndarray, " draws"]:
        distinct = np.zeros(len(weights))
        if self.items:
            order, starts = self._groups
            present = (weights > 0)[:, order]
            distinct = np.logical_or.reduceat(present, starts, axis=1).sum(axis=1).astype(float)
        if self.totals is None:
            return distinct * self.scale
        return distinct / np.maximum(weights @ self.totals, 1e-12)

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """The clips of all items, sorted by item, and where each item starts."""
        _, ids = np.unique(np.array(self.items), return_inverse=True)
        order = np.argsort(ids, kind="stable")
        return np.array(self.clips)[order], np.flatnonzero(np.diff(ids[order], prepend=-1))


Statistic = Sums | Coverage


def mean_of(scores: Float[np.ndarray, " clips"]) -> Sums:
    """The statistic of a score that is the mean of its per-clip scores."""
    return Sums(np.column_stack([scores, np.ones(len(scores))]), _mean)


def joined(first: Statistic, second: Statistic, clips: int) -> Statistic:
    """One statistic over the `clips` clips of `first` followed by those of `second`."""
    if isinstance(first, Sums) and isinstance(second, Sums):
        return Sums(np.vstack([first.rows, second.rows]), first.formula)
    assert isinstance(first, Coverage)
    assert isinstance(second, Coverage)
    totals = None
    if first.totals is not None and second.totals is not None:
        totals = np.concatenate([first.totals, second.totals])
    places = [*first.clips, *(clip + clips for clip in second.clips)]
    return Coverage([*first.items, *second.items], places, totals, first.scale)


def resamples(clips: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "rows clips"]]:
    """`draws` rows of clip weights in blocks: how often each clip was drawn with replacement.

    The rows depend on `clips`, `draws` and `seed` alone, so that two systems meet the same
    resamples.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // clips)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = rng.integers(clips, size=(rows, clips)) + np.arange(rows)[:, None] * clips
        yield np.bincount(drawn.ravel(), minlength=rows * clips).reshape(rows, clips).astype(float)


def value(statistic: Statistic, clips: int) -> float:
    """The corpus score itself: every clip counts once."""
    return float(statistic.values(np.ones((1, clips)))[0])


def replicates(
    statistics: Sequence[Statistic], clips: int, draws: int, seed: int
) -> Float[np.ndarray, "statistics draws"]:
    """The score of each statistic under each resample, re-centred where it asks for that."""
    blocks = [
        np.stack([statistic.values(weights) for statistic in statistics])
        for weights in resamples(clips, draws, seed)
    ]
    result = np.concatenate(blocks, axis=1)
    for row, statistic in zip(result, statistics, strict=True):
        if statistic.recentred:
            row += value(statistic, clips) - row.mean()
    return result


def interval(draws: Float[np.ndarray, " draws"], top: float = np.inf) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap replicates, ending at `top` at the latest."""
    low, high = np.minimum(np.quantile(draws, [0.025, 0.975]), top)
    return float(low), float(high)


def swap_test(
    pairs: Sequence[tuple[Statistic, Statistic]], clips: int, draws: int, seed: int
) -> float:
    """Two-sided p of the difference between two systems: how often random swaps reach it.

    Approximate randomisation (Noreen 1989; Riezler and Maxwell 2005): under the null hypothesis the
    two captions of a clip are exchangeable. Each pair is one seed; a score of a system is the mean
    over its seeds, and a swap exchanges all captions of a clip. (hits + 1) / (draws + 1), so never
    0.
    """
    stacked = [joined(first, second, clips) for first, second in pairs]
    observed = abs(_difference(stacked, np.zeros((1, clips)))[0])
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // (2 * clips))
    hits = 0
    for start in range(0, draws, block):
        swap = (rng.random((min(block, draws - start), clips)) < 0.5).astype(float)
        hits += int((np.abs(_difference(stacked, swap)) >= observed - 1e-12).sum())
    return (hits + 1) / (draws + 1)


def _difference(stacked: Sequence[Statistic], swap: np.ndarray) -> np.ndarray:
    first = np.hstack([1.0 - swap, swap])
    second = np.hstack([swap, 1.0 - swap])
    return np.mean([s.values(first) - s.values(second) for s in stacked], axis=0)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
