"""Exact retrieval both ways, tile by tile, without storing an N x M matrix or sorting rankings."""

import numpy as np
from jaxtyping import Float, Int

from earwitness.gap.clouds import PairedClouds
from earwitness.statistics import Estimate, Resamples

TOP = (1, 5, 10)
_ROWS = 1020
_COLUMNS = 16384
_BYTE = 255
# Two cosines closer than this are a tie: float32 products of 512 numbers differ by about 1e-7
# depending on the shape of the tile.
_TIE = 1e-6


def _column_counts(mask: np.ndarray) -> Int[np.ndarray, " m"]:
    """How often each column is true; summed as bytes, which is many times faster than integers."""
    counts = np.zeros(mask.shape[1], np.int64)
    as_bytes = mask.view(np.uint8)
    for start in range(0, len(mask), _BYTE):
        counts += np.add.reduce(as_bytes[start : start + _BYTE], axis=0, dtype=np.uint8)
    return counts


def _row_counts(mask: np.ndarray) -> Int[np.ndarray, " n"]:
    return np.fromiter((np.count_nonzero(row) for row in mask), np.int64, len(mask))


def _hits(above: Int[np.ndarray, " n"], tied: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """The probability that the right one is in the top k if ties are broken at random."""
    k = np.array(TOP, np.float64)
    return np.clip((k - above[:, None]) / (tied[:, None] + 1.0), 0.0, 1.0)


def hits(pairs: PairedClouds) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "M 3"]]:
    """Per clip and per caption: is the right one within the top 1, 5, 10?

    A clip ranks its best own caption among all captions of other clips; a caption ranks its sound
    among all sounds. Ties share the rank, so a cloud of equal vectors scores at chance level.
    """
    audio, text = pairs.unit_audio, pairs.unit_text
    own = np.einsum("mc,mc->m", audio[pairs.owner], text)
    starts = np.searchsorted(pairs.owner, np.arange(pairs.clips))
    best = np.maximum.reduceat(own, starts)
    near_best = np.add.reduceat((own >= best[pairs.owner] - _TIE).astype(np.int64), starts)
    clip_above, clip_level = np.zeros((2, pairs.clips), np.int64)
    caption_above, caption_level = np.zeros((2, pairs.captions), np.int64)
    for i in range(0, pairs.clips, _ROWS):
        rows = slice(i, i + _ROWS)
        for j in range(0, pairs.captions, _COLUMNS):
            columns = slice(j, j + _COLUMNS)
            cosine = audio[rows] @ text[columns].T
            clip_above[rows] += _row_counts(cosine > (best[rows] + _TIE)[:, None])
            clip_level[rows] += _row_counts(cosine >= (best[rows] - _TIE)[:, None])
            caption_above[columns] += _column_counts(cosine > own[columns] + _TIE)
            caption_level[columns] += _column_counts(cosine >= own[columns] - _TIE)
    clip_tied = np.maximum(clip_level - clip_above - near_best, 0)
    caption_tied = np.maximum(caption_level - caption_above - 1, 0)
    return _hits(clip_above, clip_tied), _hits(caption_above, caption_tied)


def retrieval_quantities(pairs: PairedClouds, resamples: Resamples) -> dict[str, Estimate]:
    """R@1, R@5, R@10 from sound to caption and back. Resampling clips keeps the candidates."""
    from_audio, from_text = hits(pairs)
    captions = np.bincount(pairs.owner).astype(np.float64)
    per_clip = pairs.mean_per_clip(from_text) * captions[:, None]
    drawn = resamples.sums(np.concatenate([from_audio, per_clip, captions[:, None]], axis=1))
    estimates = {}
    for column, k in enumerate(TOP):
        estimates[f"audio_to_text_r{k}"] = Estimate(
            float(from_audio[:, column].mean()), drawn[:, column] / pairs.clips, pairs.clips
        )
    for column, k in enumerate(TOP):
        estimates[f"text_to_audio_r{k}"] = Estimate(
            float(from_text[:, column].mean()), drawn[:, 3 + column] / drawn[:, 6], pairs.clips
        )
    return estimates
