"""BLEU-1..4, ROUGE-L and CIDEr-D on integer arrays, identical to the COCO caption tools.

Every word and n-gram becomes an integer once; counting, clipping and weighting are then array
operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

ORDERS = 4
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0
_TINY, _SMALL = 1e-15, 1e-9


@dataclass(frozen=True)
class Grams:
    """The distinct n-grams (n = 1..4): one row per (sentence, n-gram), sorted by both.

    Candidate i is sentence i; the references follow, clip by clip, and `clip` names the clip of
    each sentence.
    """

    sentence: Int[np.ndarray, " rows"]
    gram: Int[np.ndarray, " rows"]
    count: Int[np.ndarray, " rows"]
    order: Int[np.ndarray, " grams"]
    words: Int[np.ndarray, " sentences"]
    clip: Int[np.ndarray, " sentences"]
    clips: int


def count_grams(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Grams:
    """The n-gram counts of normalized candidates (one per clip) and references (one or more)."""
    sentences = [text.split() for text in candidates]
    sentences += [text.split() for group in references for text in group]
    clip = [*range(len(candidates))]
    clip += [index for index, group in enumerate(references) for _ in group]
    ids: dict[tuple[str, ...], int] = {}
    grams: list[int] = []
    for words in sentences:
        for n in range(1, ORDERS + 1):
            for start in range(len(words) - n + 1):
                grams.append(ids.setdefault(tuple(words[start : start + n]), len(ids)))
    lengths = np.array([len(words) for words in sentences], dtype=np.int64)
    per_sentence = sum(np.maximum(lengths - n, 0) for n in range(ORDERS))
    keys = np.repeat(np.arange(len(sentences)), per_sentence) * max(len(ids), 1)
    keys, count = np.unique(keys + np.array(grams, dtype=np.int64), return_counts=True)
    sentence, gram = np.divmod(keys, max(len(ids), 1))
    order = np.array([len(gram) - 1 for gram in ids], dtype=np.int64)
    return Grams(sentence, gram, count, order, lengths, np.array(clip), len(candidates))


def bleu_counts(grams: Grams) -> Float[np.ndarray, "clips 10"]:
    """Per clip: candidate length, closest reference length, 4 guessed and 4 correct n-gram counts.

    Corpus BLEU is `bleu` of their sums. Of two equally close reference lengths, the shorter is
    used.
    """
    n, width = grams.clips, max(len(grams.order), 1)
    is_reference = grams.sentence >= n
    keys = grams.clip[grams.sentence] * width + grams.gram
    ref_keys, where = np.unique(keys[is_reference], return_inverse=True)
    ref_most = np.zeros(len(ref_keys), dtype=np.int64)
    np.maximum.at(ref_most, where, grams.count[is_reference])
    cand_keys, cand_count = keys[~is_reference], grams.count[~is_reference]
    found, place = _find(cand_keys, ref_keys)
    clipped = np.where(found, np.minimum(cand_count, _take(ref_most, place)), 0)
    correct = np.zeros((n, ORDERS))
    np.add.at(correct, (cand_keys // width, grams.order[cand_keys % width]), clipped)
    length = grams.words[:n]
    guessed = np.maximum(length[:, None] - np.arange(ORDERS), 0)
    return np.column_stack([length, _closest_length(grams), guessed, correct]).astype(np.float64)


def bleu(counts: Float[np.ndarray, "*rows 10"]) -> Float[np.ndarray, "*rows 4"]:
    """BLEU-1..4 of count rows (see `bleu_counts`), one result row per count row."""
    length, reference_length = counts[..., 0], counts[..., 1]
    precision = (counts[..., 6:] + _TINY) / (counts[..., 2:6] + _SMALL)
    score = np.cumprod(precision, axis=-1) ** (1.0 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity = np.exp(np.minimum(1.0 - 1.0 / ratio, 0.0))
    return score * brevity[..., None]


def cider_d(grams: Grams) -> Float[np.ndarray, " clips"]:
    """CIDEr-D of each of two or more clips; document frequencies are from their references.

    Vedantam et al. 2015, eq. 4 with CIDEr-D's clipping and length penalty; scaled by 10.
    The length in the penalty is the number of bigrams, as in the authors' code.
    """
    n, width = grams.clips, max(len(grams.order), 1)
    is_reference = grams.sentence >= n
    keys = grams.clip[grams.sentence] * width + grams.gram
    frequency = np.bincount(np.unique(keys[is_reference]) % width, minlength=width)
    idf = np.log(float(n)) - np.log(np.maximum(frequency, 1.0))
    weight = grams.count * idf[grams.gram]
    cell = grams.sentence * ORDERS + grams.order[grams.gram]
    cells = len(grams.words) * ORDERS
    norm = np.sqrt(np.bincount(cell, weight**2, cells)).reshape(-1, ORDERS)
    found, place = _find(keys[is_reference], keys[~is_reference])
    cand_weight = np.where(found, _take(weight[~is_reference], place), 0.0)
    ref_weight = weight[is_reference]
    product = np.minimum(cand_weight, ref_weight) * ref_weight
    dot = np.bincount(cell[is_reference], product, cells).reshape(-1, ORDERS)[n:]
    scale = norm[grams.clip[n:]] * norm[n:]
    cosine = np.divide(dot, scale, out=dot, where=scale != 0)
    bigrams = np.maximum(grams.words - 1, 0)
    delta = bigrams[grams.clip[n:]] - bigrams[n:]
    penalty = np.exp(-(delta**2) / (2 * CIDER_SIGMA**2))
    similarity = cosine.mean(axis=1) * penalty
    references = np.bincount(grams.clip[n:], minlength=n)
    return 10.0 * np.bincount(grams.clip[n:], similarity, n) / references


def rouge_l(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " clips"]:
    """ROUGE-L of each clip: F (beta 1.2) of the best precision and best recall over references."""
    return np.array(
        [
            _rouge_l(c.split(), [r.split() for r in group])
            for c, group in zip(candidates, references, strict=True)
        ]
    )


def _rouge_l(candidate: list[str], references: list[list[str]]) -> float:
    if not candidate:
        return 0.0
    common = [(longest_common(candidate, reference), len(reference)) for reference in references]
    precision = max(length for length, _ in common) / len(candidate)
    recall = max(length / words for length, words in common)
    if precision == 0:
        return 0.0
    beta2 = ROUGE_BETA**2
    return (1 + beta2) * precision * recall / (recall + beta2 * precision)


def longest_common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence, bit-parallel (Hyyro 2004)."""
    positions: dict[str, int] = {}
    for place, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    state = full
    for word in second:
        matches = state & positions.get(word, 0)
        state = ((state + matches) | (state - matches)) & full
    return len(first) - state.bit_count()


def _closest_length(grams: Grams) -> Int[np.ndarray, " clips"]:
    """The reference length closest to each candidate's; of two, the shorter."""
    n = grams.clips
    clip, length = grams.clip[n:], grams.words[n:]
    order = np.lexsort((length, np.abs(length - grams.words[clip]), clip))
    return length[order][np.searchsorted(clip[order], np.arange(n))]


def _find(
    wanted: Int[np.ndarray, " wanted"], keys: Int[np.ndarray, " keys"]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each `wanted` key is among the sorted `keys`, and its index there."""
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    return (keys[place] == wanted if len(keys) else np.zeros(len(wanted), bool)), place


def _take(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    return values[place] if len(values) else np.zeros(len(place), values.dtype)
