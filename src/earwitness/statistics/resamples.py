"""Clips drawn with replacement, as counts: one set of resamples for every score and distance.

The clip is the unit that is drawn: a clip keeps all its captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

_CELLS = 8_000_000


@dataclass(frozen=True)
class Resamples:
    """How often each of N clips was drawn in each of K resamples."""

    counts: UInt8[np.ndarray, "K N"]

    @classmethod
    def draw(
        cls, clips: int, resamples: int, seed: int | Sequence[int], *, pairs: bool = False
    ) -> "Resamples":
        """K times N clips with replacement; the same clips for the same N and seed.

        So two systems that are compared see the same resamples. With `pairs`, a resample of one
        clip alone, which has no pair i != j, is drawn again.
        """
        rng = np.random.default_rng(seed)
        counts = np.empty((resamples, clips), np.uint8)
        for row in counts:
            drawn = rng.integers(clips, size=clips)
            while pairs and np.all(drawn == drawn[0]):
                drawn = rng.integers(clips, size=clips)
            row[:] = np.bincount(drawn, minlength=clips)
        return cls(counts)

    def blocks(self, kind: type[np.floating] = np.float32) -> Iterator[Float[np.ndarray, "k N"]]:
        """The counts as floating-point weights, some resamples at a time."""
        rows = max(1, _CELLS // self.counts.shape[1])
        for start in range(0, len(self.counts), rows):
            yield self.counts[start : start + rows].astype(kind)

    def sums(self, values: Float[np.ndarray, "N Q"]) -> Float[np.ndarray, "K Q"]:
        """The sum of every column in each resample."""
        narrow = values.astype(np.float32)
        return np.concatenate([block @ narrow for block in self.blocks()]).astype(np.float64)


def draw_seeds(runs: int, resamples: int, rng: np.random.Generator) -> Int[np.ndarray, "K R"]:
    """Which of R runs (training seeds) make up each resample: R of them with replacement."""
    return rng.integers(runs, size=(resamples, runs))


def over_seeds(
    replicates: Float[np.ndarray, "R K"], drawn: Int[np.ndarray, "K R"]
) -> Float[np.ndarray, " K"]:
    """Hierarchical bootstrap: the mean over the drawn seeds, in each resample of the clips.

    Row r holds run r's score under each of the K resamples of clips, which all runs share. With few
    runs the spread over seeds comes out too small, by a factor of sqrt((R - 1) / R).
    """
    return np.take_along_axis(replicates.T, drawn, 1).mean(axis=1)
