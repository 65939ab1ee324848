"""One caption out of the n-best of several captioners: the one that the others agree with most."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from earwitness.caption import CaptionsWaveforms, Decoding
from earwitness.captioning.rerank import consensus, overlap_f1

BATCH = 8
LEAST = 1e-12
"""probability that stands for none"""


class Agreed(NamedTuple):
    """A caption, and how far the other candidates agree with it, 0 to 1."""

    text: str
    agreement: float


class Candidate(NamedTuple):
    """A caption of one captioner and its log-probability per token."""

    text: str
    log_probability: float


def agreed(captioners: Sequence[Sequence[Candidate]]) -> Agreed:
    """The candidate with the highest `consensus` among all of one recording.

    Each captioner's log-probabilities are taken relative to its own best, so that no captioner
    counts for more because it is more confident overall. The agreement is the mean over the *other*
    captioners of the best match they offer, so that a captioner's own beams do not vouch for each
    other; with one captioner it is the consensus itself.
    """
    texts: list[str] = []
    logs: list[float] = []
    for candidates in captioners:
        highest = max((c.log_probability for c in candidates), default=0.0)
        texts += [c.text for c in candidates]
        logs += [c.log_probability - highest for c in candidates]
    if not texts:
        return Agreed("", 0.0)
    scores = consensus(texts, logs)
    best = max(range(len(texts)), key=scores.__getitem__)
    return Agreed(texts[best], _vouched(texts[best], best, captioners, scores[best]))


def _vouched(
    text: str, place: int, captioners: Sequence[Sequence[Candidate]], alone: float
) -> float:
    found, start = [], 0
    for candidates in captioners:
        own = start <= place < start + len(candidates)
        if not own and candidates:
            found.append(max(overlap_f1(text, c.text) for c in candidates))
        start += len(candidates)
    return sum(found) / len(found) if found else alone


def n_best(
    captioner: CaptionsWaveforms,
    waveforms: Sequence[Float[np.ndarray, " _"]],
    count: int,
    decoding: Decoding | None = None,
) -> list[list[Candidate]]:
    """The `count` best captions of each waveform, with the captioner's own search otherwise."""
    own = decoding or captioner.decoding
    several = own.model_copy(update={"n_best": count, "beam_size": max(count, own.beam_size)})
    rows: list[list[Candidate]] = []
    for start in range(0, len(waveforms), BATCH):
        found = captioner.caption_waveforms(waveforms[start : start + BATCH], several)
        rows += [[Candidate(c.text, math.log(max(c.score, LEAST))) for c in row] for row in found]
    return rows
