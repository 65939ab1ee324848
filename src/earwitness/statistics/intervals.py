"""95 % intervals: percentiles of bootstrap replicates, and the jackknife."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from earwitness.statistics.corpus import Statistic, value
from earwitness.statistics.resamples import Resamples


def interval(
    draws: Float[np.ndarray, " K"], top: float = np.inf, holding: float | None = None
) -> tuple[float, float]:
    """The percentile interval of replicates: capped at `top`, and containing `holding`."""
    low, high = np.minimum(np.quantile(draws, [0.025, 0.975]), top)
    if holding is not None:
        low, high = min(low, holding), max(high, holding)
    return float(low), float(high)


def recentered(draws: Float[np.ndarray, " K"], center: float) -> Float[np.ndarray, " K"]:
    """Replicates moved so that their mean is `center`.

    Drawing with replacement adds to every distance the sampling noise that the value itself already
    has once, and loses rare words: unmoved, the interval would be off the value.
    """
    return draws + (center - draws.mean())


def replicates(
    statistics: Sequence[Statistic], clips: int, draws: int, seed: int
) -> Float[np.ndarray, "statistics K"]:
    """The score of each statistic under each resample, recentered where it asks for that."""
    resamples = Resamples.draw(clips, draws, seed)
    blocks = [
        np.stack([statistic.values(weights) for statistic in statistics])
        for weights in resamples.blocks(np.float64)
    ]
    result = np.concatenate(blocks, axis=1)
    for number, statistic in enumerate(statistics):
        if statistic.recentered:
            result[number] = recentered(result[number], value(statistic, clips))
    return result


@dataclass(frozen=True)
class Estimate:
    """A value with what its interval needs: resampled values, or leave-one-group-out values."""

    value: float
    draws: Float[np.ndarray, " K"]
    clips: int
    jackknife: bool = False

    def interval(self) -> tuple[float, float]:
        """The 95 % interval around the value.

        Bootstrap: percentiles of the recentered draws, the value included.
        Jackknife: Student's t with one degree of freedom fewer than groups.
        """
        if not self.jackknife:
            return interval(recentered(self.draws, self.value), holding=self.value)
        from scipy.special import stdtrit

        groups = len(self.draws)
        deviations = self.draws - self.draws.mean()
        error = np.sqrt((groups - 1) / groups * np.sum(deviations**2))
        half = float(stdtrit(groups - 1, 0.975) * error)
        return self.value - half, self.value + half

    def how(self) -> str:
        """How the interval was made, in a few words."""
        if self.jackknife:
            return f"jackknife, {len(self.draws)} groups of clips"
        return f"bootstrap, {len(self.draws)} resamples of {self.clips} clips"

    def change_from(self, before: "Estimate") -> "Estimate":
        """This minus `before`, resample by resample: both saw the same clips each time."""
        return Estimate(
            self.value - before.value, self.draws - before.draws, self.clips, self.jackknife
        )
