"""Paired tests of two systems on the same clips, and the correction for many of them."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from earwitness.statistics.corpus import Statistic, joined

_CELLS = 8_000_000


def swap_test(
    pairs: Sequence[tuple[Statistic, Statistic]], clips: int, draws: int, seed: int
) -> float:
    """Two-sided p of the difference between two systems: how often random swaps reach it.

    Approximate randomization (Noreen 1989; Riezler and Maxwell 2005): under the null hypothesis the
    two captions of a clip are exchangeable. Each pair is one run of both; a system's score is the
    mean over its runs, and a swap exchanges all captions of a clip. p is (hits + 1) / (draws + 1),
    so never 0.
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


def _difference(
    stacked: Sequence[Statistic], swap: Float[np.ndarray, "K N"]
) -> Float[np.ndarray, " K"]:
    first = np.hstack([1.0 - swap, swap])
    second = np.hstack([swap, 1.0 - swap])
    return np.mean([s.values(first) - s.values(second) for s in stacked], axis=0)


def shifted_test(draws: Float[np.ndarray, " K"], observed: float) -> float:
    """Two-sided p of `observed` from bootstrap replicates of it, moved to a mean of zero.

    How often the moved replicates reach the observed size (Efron and Tibshirani 1993, ch. 16).
    (hits + 1) / (K + 1), so never 0. For a difference of systems over clips and seeds together,
    where a swap of captions would leave out the spread over seeds.
    """
    reached = np.abs(draws - draws.mean()) >= abs(observed) - 1e-12
    return float((reached.sum() + 1) / (len(draws) + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of one table, corrected for their number (Holm 1979); NaN stays, uncounted.

    Reject where a corrected p is below alpha: the chance of any false rejection is then at most
    alpha, however the tests depend on each other.
    """
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    corrected, largest = list(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * ps[i]))
        corrected[i] = largest
    return corrected
