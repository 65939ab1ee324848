"""How loud a sound is, and from where on it is silence."""

import math

import numpy as np
from jaxtyping import Float

SILENCE_DB = -60.0
"""a sound whose loudest 0.1 s lies below this level, in dB of full scale, is silence"""

_LEVEL_SECONDS = 0.1
_LEAST_SECONDS = 0.001
# Resampling bends a constant offset over so long at the ends of a sound.
_EDGE_SECONDS = 0.005


def level_db(samples: Float[np.ndarray, " T"], rate: int) -> float:
    """Level (RMS) of the loudest 0.1 s in dB of full scale: -3 for a full sine, -inf for silence.

    The loudest stretch, not the mean: one chirp in ten still seconds is a sound. A constant offset
    is not a sound: the mean of the samples is taken off. Where it has more than half of the energy,
    5 ms at either end do not count. Neither is less than a millisecond.
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
    # A short rest counts as if filled up with zeros: a click does not weigh more there.
    loudest = float(energy.max()) / step
    return 10 * math.log10(loudest) if loudest > 0 else -math.inf


def without_offset(samples: Float[np.ndarray, " T"], rate: int) -> Float[np.ndarray, " T"]:
    """`samples`, without a constant offset that has more than half of their energy.

    Then the 5 ms at either end, over which resampling bends the offset, are silence.

    Models hear an offset as a hum.
    """
    if len(samples) == 0 or not _is_offset(samples, samples - samples.mean(dtype=np.float64)):
        return samples
    inside = _inside(samples, rate)
    edge = (len(samples) - len(inside)) // 2
    return np.pad(inside - inside.mean(), edge).astype(samples.dtype)


def _is_offset(samples: Float[np.ndarray, " T"], centered: Float[np.ndarray, " T"]) -> bool:
    return bool(np.dot(centered, centered) < np.square(samples, dtype=np.float64).sum() / 2)


def _inside(samples: Float[np.ndarray, " T"], rate: int) -> Float[np.ndarray, " _"]:
    edge = min(round(_EDGE_SECONDS * rate), (len(samples) - 1) // 2)
    return samples[edge : len(samples) - edge]
