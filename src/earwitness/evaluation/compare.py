"""Several evaluations together: seeds pooled, two systems compared with a paired test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from earwitness.errors import DataError
from earwitness.evaluation import bootstrap
from earwitness.evaluation.scores import Evaluation


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
    """First minus second system: both values, the difference, its 95 % interval, and p."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def pool(runs: Sequence[Evaluation]) -> dict[str, PooledScore]:
    """The pooled scores of several seeds of one system on the same clips.

    The interval is a two-level bootstrap: each resample draws clips (the same for every seed) and
    seeds.

    Raises:
        DataError: no run, or runs on different clips.
    """
    _same_clips(runs)
    first, clips = runs[0], len(runs[0].ids)
    rng = np.random.default_rng(first.seed)
    chosen = rng.integers(len(runs), size=(first.resamples, len(runs)))
    pooled: dict[str, PooledScore] = {}
    for name in _shared(runs):
        values = [run.corpus[name].value for run in runs]
        low, high = math.nan, math.nan
        if clips > 1 and first.resamples:
            draws = _replicates(runs, name)
            means = np.take_along_axis(draws.T, chosen, 1).mean(axis=1)
            low, high = bootstrap.interval(means, first.statistics[name].top)
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

    The interval is a paired bootstrap over clips; p is two-sided, from swapping the two systems'
    captions clip by clip. With several seeds a system's score is its mean over seeds, and both need
    equally many.

    Raises:
        DataError: different clips, another text normalisation or metric version, or unequal numbers
            of seeds.
    """
    left = [first] if isinstance(first, Evaluation) else [*first]
    right = [second] if isinstance(second, Evaluation) else [*second]
    if len(left) != len(right):
        raise DataError(
            f"{len(left)} seeds against {len(right)}: the same number of runs of each system was "
            "expected"
        )
    _same_clips([*left, *right])
    clips, draws, seed = len(left[0].ids), left[0].resamples, left[0].seed
    result: dict[str, Difference] = {}
    for name in names or _shared([*left, *right]):
        values = [
            float(np.mean([run.corpus[name].value for run in side])) for side in (left, right)
        ]
        low, high, p = math.nan, math.nan, math.nan
        if clips > 1 and draws:
            delta = _replicates(left, name).mean(axis=0) - _replicates(right, name).mean(axis=0)
            low, high = bootstrap.interval(delta)
            pairs = [
                (a.statistics[name], b.statistics[name]) for a, b in zip(left, right, strict=True)
            ]
            p = bootstrap.swap_test(pairs, clips, draws, seed)
        mine, theirs = values
        result[name] = Difference(mine, theirs, mine - theirs, low, high, p)
    return result


def _replicates(runs: Sequence[Evaluation], name: str) -> Float[np.ndarray, "runs draws"]:
    first = runs[0]
    statistics = [run.statistics[name] for run in runs]
    return bootstrap.replicates(statistics, len(first.ids), first.resamples, first.seed)


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
                "cannot be put together"
            )
        if run.fingerprint["text"] != runs[0].fingerprint["text"]:
            raise DataError("evaluations with different text normalisation cannot be put together")
        for metric, version in _metrics(run).items():
            if _metrics(runs[0]).get(metric, version) != version:
                raise DataError(
                    f"evaluations with different versions of {metric} cannot be put together"
                )


def _metrics(run: Evaluation) -> dict[str, str]:
    metrics = run.fingerprint["metrics"]
    return metrics if isinstance(metrics, dict) else {}
