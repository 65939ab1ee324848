"""Combines evaluations: pools seeds, and compares two systems with a paired test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from earwitness.errors import DataError
from earwitness.evaluation.scores import Evaluation
from earwitness.statistics import (
    draw_seeds,
    holm,
    interval,
    over_seeds,
    replicates,
    shifted_test,
    swap_test,
)


@dataclass(frozen=True)
class PooledScore:
    """The mean over seeds, its 95 % interval, the standard deviation and each seed's value."""

    value: float
    low: float
    high: float
    sd: float
    runs: list[float]


@dataclass(frozen=True)
class Difference:
    """First minus second system: both values, the difference, its 95 % interval, and p.

    `p_holm` is p with Holm's correction for the number of metrics compared.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = math.nan


def pool(runs: Sequence[Evaluation]) -> dict[str, PooledScore]:
    """The pooled scores of several seeds of one system on the same clips.

    The interval is a hierarchical bootstrap: each resample draws clips (the same for every seed)
    and seeds.

    Raises:
        DataError: there are no runs, or they are on different clips.
    """
    _same_clips(runs)
    first, clips = runs[0], len(runs[0].ids)
    rng = np.random.default_rng(first.seed)
    chosen = draw_seeds(len(runs), first.resamples, rng)
    pooled: dict[str, PooledScore] = {}
    for name in _shared(runs):
        values = [run.corpus[name].value for run in runs]
        low, high = math.nan, math.nan
        if clips > 1 and first.resamples:
            means = over_seeds(_replicates(runs, name), chosen)
            low, high = interval(means, first.statistics[name].top)
        sd = float(np.std(values, ddof=1)) if len(runs) > 1 else math.nan
        pooled[name] = PooledScore(float(np.mean(values)), low, high, sd, values)
    return pooled


def compare(
    first: Evaluation | Sequence[Evaluation],
    second: Evaluation | Sequence[Evaluation],
    *,
    names: Sequence[str] | None = None,
) -> dict[str, Difference]:
    """First minus second system on the same clips, for every metric that both have.

    With one run of each, the interval is a paired bootstrap over clips, and p is two-sided, from
    swapping the two systems' captions clip by clip. With several seeds a system's score is its mean
    over seeds, and both come from a hierarchical bootstrap: clips are drawn for both systems
    together, seeds separately for each, and p is for the difference shifted to zero. Holm's
    correction covers all metrics compared.

    Raises:
        DataError: the clips, text normalization or metric versions differ, or the numbers of seeds.
    """
    left = [first] if isinstance(first, Evaluation) else [*first]
    right = [second] if isinstance(second, Evaluation) else [*second]
    if len(left) != len(right):
        raise DataError(
            f"{len(left)} seeds against {len(right)}: expected the same number of runs of each "
            "system"
        )
    _same_clips([*left, *right])
    found = [_difference(left, right, name) for name in names or _shared([*left, *right])]
    corrected = holm([difference.p for _, difference in found])
    return {
        name: replace(difference, p_holm=p)
        for (name, difference), p in zip(found, corrected, strict=True)
    }


def _difference(
    left: Sequence[Evaluation], right: Sequence[Evaluation], name: str
) -> tuple[str, Difference]:
    clips, draws, seed = len(left[0].ids), left[0].resamples, left[0].seed
    mine, theirs = (
        float(np.mean([run.corpus[name].value for run in side])) for side in (left, right)
    )
    low, high, p = math.nan, math.nan, math.nan
    if clips > 1 and draws:
        rng = np.random.default_rng([seed, 1])
        sides = [
            over_seeds(_replicates(side, name), draw_seeds(len(side), draws, rng))
            for side in (left, right)
        ]
        delta = sides[0] - sides[1]
        low, high = interval(delta)
        if len(left) > 1:
            p = shifted_test(delta, mine - theirs)
        else:
            p = swap_test(
                [(left[0].statistics[name], right[0].statistics[name])], clips, draws, seed
            )
    return name, Difference(mine, theirs, mine - theirs, low, high, p)


def _replicates(runs: Sequence[Evaluation], name: str) -> Float[np.ndarray, "runs draws"]:
    first = runs[0]
    statistics = [run.statistics[name] for run in runs]
    return replicates(statistics, len(first.ids), first.resamples, first.seed)


def _shared(runs: Sequence[Evaluation]) -> list[str]:
    return [name for name in runs[0].corpus if all(name in run.corpus for run in runs)]


def _same_clips(runs: Sequence[Evaluation]) -> None:
    if not runs:
        raise DataError("no evaluation given")
    for run in runs[1:]:
        if run.ids != runs[0].ids or run.references != runs[0].references:
            raise DataError(
                f"evaluations on different clips or references ({len(runs[0].ids)} and "
                f"{len(run.ids)} clips) "
                "cannot be pooled"
            )
        if run.fingerprint["text"] != runs[0].fingerprint["text"]:
            raise DataError("evaluations with different text normalization cannot be pooled")
        for metric, version in _metrics(run).items():
            if _metrics(runs[0]).get(metric, version) != version:
                raise DataError(f"evaluations with different versions of {metric} cannot be pooled")


def _metrics(run: Evaluation) -> dict[str, str]:
    metrics = run.fingerprint["metrics"]
    return metrics if isinstance(metrics, dict) else {}
