"""Cauchy-Schwarz divergence and MMD with one Gaussian kernel, on a sample of clips of stated size.

Both are computed from the same three kernel means: MMD is the distance between the two clouds' mean
elements, and the divergence is -2 log of the cosine between them. Kernel, width and divergence are
those of LAMB's aligner, defined in `earwitness.cauchy_schwarz`.
"""

import numpy as np
from jaxtyping import Float

from earwitness.cauchy_schwarz import SMALLEST_WIDTH, divergence, log_kernel, squared_width
from earwitness.gap.clouds import PairedClouds, draw_clips
from earwitness.statistics import Estimate

CAPTION_LIMIT = 3000
_WIDTH_LIMIT = 1000


def squared_distances(
    x: Float[np.ndarray, "n C"], y: Float[np.ndarray, "m C"]
) -> Float[np.ndarray, "n m"]:
    """||x_i - y_j||^2 in float64; both clouds are centered first to avoid cancellation."""
    middle = (x.mean(axis=0, dtype=np.float64) + y.mean(axis=0, dtype=np.float64)) / 2.0
    x, y = x - middle, y - middle
    products = x @ y.T
    squares = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None]
    return np.maximum(squares - 2.0 * products, 0.0)


def sampled(pairs: PairedClouds, limit: int, seed: int) -> PairedClouds:
    """All pairs, or clips drawn without replacement that have `limit` captions in total."""
    if pairs.captions <= limit:
        return pairs
    clips = np.random.default_rng([seed, pairs.clips, 2]).permutation(pairs.clips)
    captions = np.cumsum(np.bincount(pairs.owner)[clips])
    kept = max(2, int(np.searchsorted(captions, limit, side="right")))
    return pairs.subset(clips[:kept])


def median_width(pairs: PairedClouds, seed: int) -> float:
    """sigma by the median rule of `earwitness.cauchy_schwarz`: over the pairs between the clouds.

    Every sound with every caption, each pair once; uses at most 1000 captions and their sounds.
    """
    part = sampled(pairs, _WIDTH_LIMIT, seed)
    distances = squared_distances(part.audio, part.text)
    median = float(np.quantile(distances, 0.5, method="lower"))
    return max(squared_width(median), SMALLEST_WIDTH) ** 0.5


def _kernel(
    x: Float[np.ndarray, "n C"], y: Float[np.ndarray, "m C"], sigma: float
) -> Float[np.ndarray, "n m"]:
    return np.exp(log_kernel(squared_distances(x, y), sigma**2))


def _means(
    kernel: Float[np.ndarray, "n m"],
    left: Float[np.ndarray, "K n"],
    right: Float[np.ndarray, "K m"],
) -> Float[np.ndarray, " K"]:
    return np.einsum("km,km->k", left @ kernel, right)


def kernel_quantities(
    pairs: PairedClouds, sigma: float, bootstrap: int, seed: int
) -> dict[str, Estimate]:
    """Cauchy-Schwarz divergence and MMD; a clip with several captions shares its weight among them.

    V-statistics: kernel values of a point with itself are included, as in LAMB's aligner, so both
    are 0 for equal clouds and never negative. Above 3000 captions, a random subset of the clips is
    used.
    """
    part = sampled(pairs, CAPTION_LIMIT, seed)
    counts = draw_clips(part.clips, bootstrap, seed).counts
    audio = np.concatenate([np.ones((1, part.clips)), counts]) / part.clips
    text = audio[:, part.owner] * part.share
    xx = _means(_kernel(part.audio, part.audio, sigma), audio, audio)
    yy = _means(_kernel(part.text, part.text, sigma), text, text)
    xy = _means(_kernel(part.audio, part.text, sigma), audio, text)
    # For distant clouds the cross mean underflows; the smallest double keeps its log finite.
    xy = np.maximum(xy, np.finfo(np.float64).tiny)
    cs = np.maximum(divergence(np.log(xx), np.log(yy), np.log(xy)), 0.0)
    distance = np.sqrt(np.maximum(xx + yy - 2.0 * xy, 0.0))
    return {
        "cs_divergence": Estimate(float(cs[0]), cs[1:], part.clips),
        "mmd": Estimate(float(distance[0]), distance[1:], part.clips),
    }
