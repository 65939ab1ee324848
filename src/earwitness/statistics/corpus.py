"""Corpus scores as functions of clip weights, so that a resample is a row of weights.

A corpus score is a function of how often each clip counts. A `Statistic` gives that function; the
value itself is the function at weight 1 for every clip, a bootstrap replicate is the function at
multinomial weights, and a swap of two systems on some clips is the function at weights 0 and 1 over
the clips of both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Sums:
    """A score that is a `formula` of per-clip `rows` summed over clips."""

    rows: Float[np.ndarray, "clips columns"]
    formula: Callable[[np.ndarray], np.ndarray]
    top: float = np.inf
    recentered: bool = False

    def values(self, weights: Float[np.ndarray, "draws clips"]) -> Float[np.ndarray, " draws"]:
        return self.formula(weights @ self.rows)


@dataclass(frozen=True)
class Coverage:
    """The number of distinct items (words, n-grams, captions) among the weighted clips.

    `items[k]` occurs in clip `clips[k]`. `totals` None counts the items; otherwise they are divided
    by the weighted sum of `totals`. A resample repeats clips and so loses rare items: intervals are
    recentered on the value, and end at `top`.
    """

    items: Sequence[str]
    clips: Sequence[int]
    totals: Float[np.ndarray, " clips"] | None = None
    scale: float = 1.0
    top: float = np.inf
    recentered: bool = True

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


def value(statistic: Statistic, clips: int) -> float:
    """The corpus score itself: every clip counts once."""
    return float(statistic.values(np.ones((1, clips)))[0])


def _mean(sums: Float[np.ndarray, "*draws two"]) -> Float[np.ndarray, "*draws"]:
    return sums[..., 0] / sums[..., 1]
