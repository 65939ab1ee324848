"""Quantities of second moments: Frechet distance and Gram correlation, exact in O(N C^2).

The Gram correlation is over all pairs i != j, yet no Gram matrix is built: the sum of
(x_i.x_j)(y_i.y_j) over all i, j is the squared Frobenius norm of X^T Y.
Intervals are from a delete-a-group jackknife, since the moments of a group can be subtracted again,
while each bootstrap resample would need its own covariances.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from earwitness.gap.clouds import PairedClouds
from earwitness.statistics import Estimate

GROUPS = 20
_CHUNK = 4096


@dataclass(frozen=True)
class _Moments:
    """Sums over some clips, from which both quantities are computed; they add and subtract."""

    clips: float
    audio: Float[np.ndarray, " C"]
    text: Float[np.ndarray, " C"]
    audio_audio: Float[np.ndarray, "C C"]
    text_text: Float[np.ndarray, "C C"]
    unit_audio: Float[np.ndarray, " C"]
    unit_text: Float[np.ndarray, " C"]
    gram_audio: Float[np.ndarray, "C C"]
    gram_text: Float[np.ndarray, "C C"]
    gram_cross: Float[np.ndarray, "C C"]
    own: Float[np.ndarray, " 5"]

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def _moments_of(pairs: PairedClouds) -> _Moments:
    """The sums over all clips of `pairs`, in float64; each caption weighs 1 / captions per clip."""
    x, y = pairs.audio.astype(np.float64), pairs.text.astype(np.float64)
    weighted = y * pairs.share[:, None]
    u = x if pairs.audio is pairs.unit_audio else pairs.unit_audio.astype(np.float64)
    v = pairs.mean_per_clip(pairs.unit_text.astype(np.float64))
    audio_audio = x.T @ x
    uu, vv = np.sum(u * u, axis=1), np.sum(v * v, axis=1)
    return _Moments(
        clips=float(pairs.clips),
        audio=x.sum(axis=0),
        text=weighted.sum(axis=0),
        audio_audio=audio_audio,
        text_text=y.T @ weighted,
        unit_audio=u.sum(axis=0),
        unit_text=v.sum(axis=0),
        gram_audio=audio_audio if u is x else u.T @ u,
        gram_text=v.T @ v,
        gram_cross=u.T @ v,
        own=np.array([uu.sum(), vv.sum(), uu @ uu, vv @ vv, uu @ vv]),
    )


def _moments(pairs: PairedClouds, clips: Int[np.ndarray, " n"]) -> _Moments:
    parts = [
        _moments_of(pairs.subset(clips[start : start + _CHUNK]))
        for start in range(0, len(clips), _CHUNK)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _frechet(m: _Moments) -> float:
    """Frechet distance of the two maximum-likelihood Gaussians (squared 2-Wasserstein).

    tr (S_x S_y)^(1/2) is the sum of the square roots of the eigenvalues of R S_y R, where R is the
    square root of S_x.
    """
    mean_x, mean_y = m.audio / m.clips, m.text / m.clips
    cov_x = m.audio_audio / m.clips - np.outer(mean_x, mean_x)
    cov_y = m.text_text / m.clips - np.outer(mean_y, mean_y)
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ cov_y @ root), 0.0)).sum()
    difference = mean_x - mean_y
    distance = difference @ difference + np.trace(cov_x) + np.trace(cov_y) - 2.0 * overlap
    return max(float(distance), 0.0)


def _gram_correlation(m: _Moments) -> float:
    """Pearson correlation of the off-diagonal entries of both Gram matrices; 0 if one is flat."""
    entries = m.clips * (m.clips - 1.0)
    mean_x = (m.unit_audio @ m.unit_audio - m.own[0]) / entries
    mean_y = (m.unit_text @ m.unit_text - m.own[1]) / entries
    xx = (np.sum(m.gram_audio**2) - m.own[2]) / entries
    yy = (np.sum(m.gram_text**2) - m.own[3]) / entries
    xy = (np.sum(m.gram_cross**2) - m.own[4]) / entries
    flat = 1e-12
    var_x, var_y = xx - mean_x**2, yy - mean_y**2
    if var_x < flat or var_y < flat:
        return 0.0
    return float((xy - mean_x * mean_y) / np.sqrt(var_x * var_y))


def moment_quantities(pairs: PairedClouds, seed: int) -> dict[str, Estimate]:
    """Frechet distance and Gram correlation over all clips, each with its leave-one-out values."""
    shuffled = np.random.default_rng([seed, pairs.clips, 1]).permutation(pairs.clips)
    groups = np.array_split(shuffled, min(GROUPS, pairs.clips))
    total = _moments(pairs, shuffled)
    frechet, gram = [], []
    for group in groups:
        rest = total - _moments(pairs, group)
        frechet.append(_frechet(rest))
        gram.append(_gram_correlation(rest) if rest.clips > 2.0 else _gram_correlation(total))
    return {
        "frechet": Estimate(_frechet(total), np.array(frechet), pairs.clips, jackknife=True),
        "gram_correlation": Estimate(
            _gram_correlation(total), np.array(gram), pairs.clips, jackknife=True
        ),
    }
