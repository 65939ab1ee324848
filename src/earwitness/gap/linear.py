"""Quantities that are sums over clips: cosines, centroid and paired distances, RMG, variance ratio.

A mean over all i != j of an inner product needs no N x N matrix: it is the product of two sums,
minus the terms i = j. Each resample therefore costs one weighted sum of the vectors.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from earwitness.gap.clouds import PairedClouds
from earwitness.statistics import Estimate, Resamples

_CHUNK = 8192


@dataclass(frozen=True)
class _Sums:
    """Sums over clips for K weightings: of vectors, per-clip numbers, and squared weights."""

    clips: Float[np.ndarray, " K"]
    unit_audio: Float[np.ndarray, "K C"]
    unit_text: Float[np.ndarray, "K C"]
    audio: Float[np.ndarray, "K C"]
    text: Float[np.ndarray, "K C"]
    once: Float[np.ndarray, "K Q"]
    squared: Float[np.ndarray, "K Q"]
    pairs: Float[np.ndarray, " K"]


def _rows_dot(x: Float[np.ndarray, "N C"], y: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    out = np.empty(len(x), np.float64)
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = np.einsum("nc,nc->n", x[part], y[part], dtype=np.float64)
    return out


def _paired_distance(pairs: PairedClouds) -> Float[np.ndarray, " N"]:
    out = np.empty(pairs.captions, np.float64)
    for start in range(0, pairs.captions, _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = pairs.audio[pairs.owner[part]] - pairs.text[part]
        out[part] = np.sqrt(_rows_dot(difference, difference))
    return pairs.mean_per_clip(out)


def _per_clip(pairs: PairedClouds, unit_text: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N Q"]:
    """Columns: paired cosine, paired distance, |u|^2, |mean caption|^2, |x|^2, mean |y|^2."""
    return np.stack(
        [
            _rows_dot(pairs.unit_audio, unit_text),
            _paired_distance(pairs),
            _rows_dot(pairs.unit_audio, pairs.unit_audio),
            _rows_dot(unit_text, unit_text),
            _rows_dot(pairs.audio, pairs.audio),
            pairs.mean_per_clip(_rows_dot(pairs.text, pairs.text)),
        ],
        axis=1,
    )


def _quantities(s: _Sums) -> dict[str, Float[np.ndarray, " K"]]:
    n = s.clips
    paired = s.once[:, 0] / n
    unpaired = (np.sum(s.unit_audio * s.unit_text, axis=1) - s.squared[:, 0]) / s.pairs
    within_x = (np.sum(s.unit_audio**2, axis=1) - s.squared[:, 2]) / s.pairs
    within_y = (np.sum(s.unit_text**2, axis=1) - s.squared[:, 3]) / s.pairs
    difference = (s.audio - s.text) / n[:, None]
    spread_x = s.once[:, 4] / n - np.sum((s.audio / n[:, None]) ** 2, axis=1)
    spread_y = s.once[:, 5] / n - np.sum((s.text / n[:, None]) ** 2, axis=1)
    d_xy = 1.0 - paired
    d_within = 1.0 - (within_x + within_y) / 2.0
    whole = np.maximum(d_within + d_xy, 1e-12)
    return {
        "paired_cosine": paired,
        "unpaired_cosine": unpaired,
        "margin": paired - unpaired,
        "centroid_distance": np.linalg.norm(difference, axis=1),
        "paired_l2": s.once[:, 1] / n,
        "rmg": d_xy / whole,
        "variance_ratio": np.maximum(spread_x, 0.0) / np.maximum(spread_y, 1e-12),
    }


def linear_quantities(pairs: PairedClouds, resamples: Resamples) -> dict[str, Estimate]:
    """Paired and unpaired cosine, margin, centroid distance, paired L2, RMG and variance ratio.

    Several captions of a clip count as their mean: the paired cosine is the mean over the captions,
    and a pair i != j covers all pairs of a sound and another clip's captions. In a resample, a clip
    that was drawn twice is never paired with itself as another clip.
    """
    unit_text = pairs.mean_per_clip(pairs.unit_text)
    same = pairs.audio is pairs.unit_audio
    text = unit_text if same else pairs.mean_per_clip(pairs.text)
    numbers = _per_clip(pairs, unit_text)

    def sums(weights: Float[np.ndarray, "K N"]) -> _Sums:
        u, v = weights @ pairs.unit_audio, weights @ unit_text
        x, y = (u, v) if same else (weights @ pairs.audio, weights @ text)
        n, squares = weights.sum(axis=1, dtype=np.float64), weights**2
        return _Sums(
            clips=n,
            unit_audio=u.astype(np.float64),
            unit_text=v.astype(np.float64),
            audio=x.astype(np.float64),
            text=y.astype(np.float64),
            once=weights @ numbers,
            squared=squares @ numbers,
            pairs=n**2 - squares.sum(axis=1, dtype=np.float64),
        )

    exact = _quantities(_exact_sums(pairs, unit_text, text, numbers))
    drawn = [_quantities(sums(block)) for block in resamples.blocks()]
    return {
        name: Estimate(float(value[0]), np.concatenate([d[name] for d in drawn]), pairs.clips)
        for name, value in exact.items()
    }


def _exact_sums(
    pairs: PairedClouds,
    unit_text: Float[np.ndarray, "N C"],
    text: Float[np.ndarray, "N C"],
    numbers: Float[np.ndarray, "N Q"],
) -> _Sums:
    """The sums with every clip once, in float64."""
    n = pairs.clips
    total = numbers.sum(axis=0)[None]
    clouds = (pairs.unit_audio, unit_text, pairs.audio, text)
    u, v, x, y = (cloud.sum(axis=0, dtype=np.float64)[None] for cloud in clouds)
    count = np.array([float(n)])
    return _Sums(count, u, v, x, y, total, total, count**2 - count)
