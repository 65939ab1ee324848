"""Intervals: clips drawn with replacement as counts, and the jackknife over groups of clips.

The clip is the unit that is drawn: a clip takes all its captions along.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

_BLOCK = 125


@dataclass(frozen=True)
class Estimate:
    """A value with what its interval needs: resampled values, or leave-one-group-out values."""

    value: float
    draws: Float[np.ndarray, " K"]
    clips: int
    jackknife: bool = False

    def interval(self) -> tuple[float, float]:
        """The 95 % interval around the value.

        Bootstrap: percentiles of the draws after their mean is moved onto the value. Drawing with
        replacement adds to every distance the sampling noise that the value itself already has
        once; unmoved, the interval of a distance would lie above the distance.
        Jackknife: Student's t with one degree of freedom less than groups.
        """
        deviations = self.draws - self.draws.mean()
        if self.jackknife:
            from scipy.special import stdtrit

            groups = len(self.draws)
            error = np.sqrt((groups - 1) / groups * np.sum(deviations**2))
            half = float(stdtrit(groups - 1, 0.975) * error)
            return self.value - half, self.value + half
        low, high = np.quantile(deviations, [0.025, 0.975])
        return self.value + min(float(low), 0.0), self.value + max(float(high), 0.0)

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


@dataclass(frozen=True)
class Resamples:
    """How often each of N clips was drawn in each of K resamples."""

    counts: UInt8[np.ndarray, "K N"]

    @classmethod
    def draw(cls, clips: int, resamples: int, seed: int) -> "Resamples":
        """K times N clips with replacement; the same seed gives the same clips.

        A resample of one clip alone has no pair i != j and is drawn again.
        """
        rng = np.random.default_rng([seed, clips])
        counts = np.empty((resamples, clips), np.uint8)
        for row in counts:
            drawn = rng.integers(clips, size=clips)
            while np.all(drawn == drawn[0]):
                drawn = rng.integers(clips, size=clips)
            row[:] = np.bincount(drawn, minlength=clips)
        return cls(counts)

    def blocks(self) -> Iterator[Float[np.ndarray, "k N"]]:
        """The counts as float32, some resamples at a time."""
        for start in range(0, len(self.counts), _BLOCK):
            yield self.counts[start : start + _BLOCK].astype(np.float32)

    def sums(self, values: Float[np.ndarray, "N Q"]) -> Float[np.ndarray, "K Q"]:
        """The sum of every column in each resample."""
        narrow = values.astype(np.float32)
        return np.concatenate([block @ narrow for block in self.blocks()]).astype(np.float64)
