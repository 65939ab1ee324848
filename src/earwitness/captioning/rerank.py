"""Reranks the n-best captions of a sound: by a CLAP, or by how much they agree.

This step is in neither paper and changes no model. A CLAP embeds the same decoded samples as the
captioner, each sound once, and each distinct candidate of a batch once.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness import audio
from earwitness.caption import AudioTextEncoder, Caption, CaptionsWaveforms, Decoding
from earwitness.captioning.captioner import audio_text_folder, load_audio_text
from earwitness.errors import CheckpointError, ConfigError
from earwitness.text import normalize

CONSENSUS = "consensus"
"""the name of reranking without a second model"""

CANDIDATES = 8
"""the minimum number of captions compared, even if fewer are requested"""

CLAP_WEIGHT, CONSENSUS_WEIGHT = 0.5, 1.0
"""default weight of the second score; the caption's own score has the rest"""

_LEAST = 1e-12


@dataclass(frozen=True)
class Reranker:
    """Sorts candidates by (1 - weight) * log-probability + weight * second score.

    The log-probability is the mean over a caption's tokens. The second score is the cosine
    similarity of sound and caption under `encoder`; without an encoder it is `consensus`. Both
    scores differ by about 0.1 between candidates, so they are added without scaling.
    """

    name: str
    weight: float
    encoder: AudioTextEncoder | None = field(default=None, repr=False)
    candidates: int = CANDIDATES

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(f"expected a rerank weight from 0 to 1, got {self.weight:g}")

    @classmethod
    def load(cls, name: str | Path, weight: float | None = None, device: str = "cpu") -> "Reranker":
        """The reranker called `name`: "consensus", a Diffusion-Link model (its encoder), or the
        folder of a dual encoder or of a Hugging Face CLAP. `weight` None: 0.5, or 1 for consensus.

        Raises:
            CheckpointError: there is no such model, it is damaged, or it does not read text.
            ConfigError: the weight is outside 0 to 1.
        """
        if str(name) == CONSENSUS:
            return cls(CONSENSUS, CONSENSUS_WEIGHT if weight is None else weight)
        try:
            encoder = load_audio_text(name, device)
        except CheckpointError as error:
            raise _or_consensus(error) from None
        return cls(Path(name).name, CLAP_WEIGHT if weight is None else weight, encoder)

    def captions(
        self,
        captioner: CaptionsWaveforms,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        decoding: Decoding | None = None,
    ) -> list[list[Caption]]:
        """The `n_best` captions of mono waveforms at the captioner's rate, chosen from at least
        `candidates`.
        """
        settings = decoding or captioner.decoding
        several = max(settings.n_best, self.candidates)
        rows = captioner.caption_waveforms(
            waveforms, settings.model_copy(update={"n_best": several})
        )
        ranked = self(waveforms, captioner.sample_rate, rows)
        return [row[: settings.n_best] for row in ranked]

    def __call__(
        self,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        rate: int,
        rows: Sequence[Sequence[Caption]],
    ) -> list[list[Caption]]:
        """Each row of captions, one per waveform at `rate` Hz, sorted best first."""
        if self.encoder is None:
            second = [agreements(row) for row in rows]
        else:
            second = _cosines(self.encoder, waveforms, rate, rows)
        return [self._sorted(row, scores) for row, scores in zip(rows, second, strict=True)]

    def _sorted(self, row: Sequence[Caption], scores: list[float | None]) -> list[Caption]:
        ranked = [replace(c, rerank=score) for c, score in zip(row, scores, strict=True)]
        return sorted(ranked, key=self._merit, reverse=True)

    def _merit(self, caption: Caption) -> float:
        if caption.rerank is None:
            return -math.inf
        own = math.log(max(caption.score, _LEAST))
        return (1 - self.weight) * own + self.weight * caption.rerank


def consensus(
    texts: Sequence[str],
    log_probabilities: Sequence[float],
    agreement: Callable[[str, str], float] | None = None,
) -> list[float]:
    """How much each text agrees with the others: the mean over them, weighted by probability.

    The highest is the minimum-Bayes-risk choice (Kumar and Byrne, 2004) among the candidates, with
    `agreement` (None: `overlap_f1`) as the gain. A text is not compared with itself, but is
    compared with equal texts. A single text gets 0.
    """
    gain = agreement or overlap_f1
    highest = max(log_probabilities, default=0.0)
    weights = [math.exp(value - highest) for value in log_probabilities]
    found: list[float] = []
    for i, text in enumerate(texts):
        others = [j for j in range(len(texts)) if j != i]
        total = sum(weights[j] for j in others)
        gained = sum(weights[j] * gain(text, texts[j]) for j in others)
        found.append(gained / total if total else 0.0)
    return found


def overlap_f1(first: str, second: str) -> float:
    """F1 of the words and word bigrams that two texts share, 0 to 1.

    Case and punctuation do not count; a repeated word counts each time.
    """
    left, right = _grams(first), _grams(second)
    size = left.total() + right.total()
    return 2 * (left & right).total() / size if size else 1.0


def reranker_files(name: str) -> list[Path]:
    """The files that decide what the reranker called `name` chooses. Raises CheckpointError."""
    if name in (CONSENSUS, "none"):
        return []
    try:
        folder = audio_text_folder(name)
    except CheckpointError as error:
        raise _or_consensus(error) from None
    return [folder / file for file in ("config.json", "model.safetensors")]


def _or_consensus(error: CheckpointError) -> CheckpointError:
    return CheckpointError(f"{error}, or {CONSENSUS!r}")


def _cosines(
    encoder: AudioTextEncoder,
    waveforms: Sequence[Float[np.ndarray, " _"]],
    rate: int,
    rows: Sequence[Sequence[Caption]],
) -> list[list[float | None]]:
    """The cosine similarity of each caption and its sound; one pass over sounds, one over texts."""
    texts = sorted({c.text for row in rows for c in row if normalize(c.text)})
    if not texts:
        return [[None] * len(row) for row in rows]
    own_rate = encoder.sample_rate
    clips = [w if rate == own_rate else audio.load((w, rate), own_rate) for w in waveforms]
    cosines = encoder.embed_audio(clips) @ encoder.embed_text(texts).T
    column = {text: number for number, text in enumerate(texts)}
    return [
        [float(found[column[c.text]]) if c.text in column else None for c in row]
        for row, found in zip(rows, cosines, strict=True)
    ]


def agreements(row: Sequence[Caption]) -> list[float | None]:
    """`consensus` among the captions with words; None for those without."""
    worded = [c for c in row if normalize(c.text)]
    logs = [math.log(max(c.score, _LEAST)) for c in worded]
    scores = iter(consensus([c.text for c in worded], logs))
    return [next(scores) if normalize(c.text) else None for c in row]


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = normalize(text).split()
    return Counter([*((word,) for word in words), *pairwise(words)])
