"""How loud a sound is, and when it counts as silence."""

import math

import numpy as np
from jaxtyping import Float

SILENCE_DB = -60.0
"""a sound whose loudest 0.1 s is below this level, in dBFS, is silence"""

_LEVEL_SECONDS = 0.1
_LEAST_SECONDS = 0.001
# Resampling distorts a constant offset for this long at both ends of a sound.
_EDGE_SECONDS = 0.005


def level_db(samples: Float[np.ndarray, " T"], rate: int) -> float:
    """RMS level of the loudest 0.1 s in dBFS: -3 for a full-scale sine, -inf for silence.

    The loudest stretch, not the mean: one chirp in ten quiet seconds is a sound. A constant offset
    is not a sound: the mean of the samples is subtracted. If it has more than half of the energy,
    5 ms at either end do not count. Anything shorter than a millisecond is silence.
    """
    if len(samples) < _LEAST_SECONDS * rate:
        return -math.inf
    centered = samples - samples.mean(dtype=np.float64)
    if _is_offset(samples, centered):
        samples = _inside(samples, rate)
        centered = samples - samples.mean(dtype=np.float64)
    step = max(1, min(len(samples), round(_LEVEL_SECONDS * rate)))
    starts = np.arange(0, len(samples), step)
    energy = np.add.reduceat(np.square(centered), starts)
    # A short last piece counts as if padded with zeros, so that a click weighs no more there.
    loudest = float(energy.max()) / step
    return 10 * math.log10(loudest) if loudest > 0 else -math.inf


def without_offset(samples: Float[np.ndarray, " T"], rate: int) -> Float[np.ndarray, " T"]:
    """`samples` without their constant offset, if it has more than half of their energy.

    Then the 5 ms at either end, where resampling distorts the offset, are silenced.

    Models hear an offset as a hum.
    """
    if len(samples) == 0 or not _is_offset(samples, samples - samples.mean(dtype=np.float64)):
        return samples
    inside = _inside(samples, rate)
    edge = (len(samples) - len(inside)) // 2
    return np.pad(inside - inside.mean(), edge).astype(samples.dtype)


def sounding(samples: Float[np.ndarray, " T"], rate: int) -> slice:
    """The part of `samples` from the first to the last 0.1 s above `SILENCE_DB`; all if none is.

    Models hear the silence around a sound as a part of it.
    """
    step = max(1, round(_LEVEL_SECONDS * rate))
    starts = np.arange(0, len(samples), step)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    loud = np.flatnonzero(energy >= step * 10 ** (SILENCE_DB / 10))
    if not len(loud):
        return slice(0, len(samples))
    return slice(int(loud[0]) * step, min(len(samples), (int(loud[-1]) + 1) * step))


def _is_offset(samples: Float[np.ndarray, " T"], centered: Float[np.ndarray, " T"]) -> bool:
    return bool(np.dot(centered, centered) < np.square(samples, dtype=np.float64).sum() / 2)


def _inside(samples: Float[np.ndarray, " T"], rate: int) -> Float[np.ndarray, " _"]:
    edge = min(round(_EDGE_SECONDS * rate), (len(samples) - 1) // 2)
    return samples[edge : len(samples) - edge]
