"""The n-best captions of a sound in a better order: by a CLAP, or by how far they agree.

Neither paper has this step; it changes no model. A CLAP hears the same decoded samples as the
captioner, once for each sound, and reads every different candidate of a batch once.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from earwitness.errors import CheckpointError, ConfigError
from earwitness.models.names import model_folder, part_folder
from earwitness.text import normalize

if TYPE_CHECKING:
    from earwitness.system.captioner import Caption, Captioner
    from earwitness.system.decoder import Decoding

CONSENSUS = "consensus"
"""the way of reranking that asks no second model"""

CANDIDATES = 8
"""captions that are compared where fewer are asked for"""

CLAP_WEIGHT, CONSENSUS_WEIGHT = 0.5, 1.0
"""what the second score counts for by default; the caption's own counts for the rest"""

_LEAST = 1e-12


@dataclass(frozen=True)
class Ranked:
    """A `Caption` with the score that it was put in order by.

    `rerank` is the cosine of sound and caption, or the mean agreement with the other candidates;
    None for a caption without words, which goes last.
    """

    text: str
    score: float
    start_s: float
    end_s: float
    model: str
    rerank: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Reranker:
    """Puts candidates in the order of (1 - weight) * log-probability + weight * second score.

    The log-probability is the mean over a caption's tokens. `encoder` gives the second score, the
    cosine of sound and caption; without one it is `consensus`. Both scores differ by about a tenth
    between candidates, so that they are added as they are.
    """

    name: str
    weight: float
    encoder: Any = field(default=None, repr=False)
    candidates: int = CANDIDATES

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(f"a rerank weight of {self.weight:g}; accepted are 0 to 1")

    @classmethod
    def load(cls, name: str | Path, weight: float | None = None, device: str = "cpu") -> "Reranker":
        """The way of reranking called `name`: "consensus", a Diffusion-Link model (its encoder), or
        the folder of a dual encoder or of a Hugging Face CLAP. `weight` None: 0.5; consensus 1.

        Raises:
            CheckpointError: there is no such model, it is damaged, or it reads no text.
            ConfigError: a weight outside 0 to 1.
        """
        if str(name) == CONSENSUS:
            return cls(CONSENSUS, CONSENSUS_WEIGHT if weight is None else weight)
        from earwitness.encoders import load_embedding_encoder

        folder, audio = clap_folders(name)
        encoder: Any = load_embedding_encoder(folder, audio)
        chosen = CLAP_WEIGHT if weight is None else weight
        return cls(Path(name).name, chosen, encoder.to(device))

    def captions(
        self,
        captioner: "Captioner",
        waveforms: Sequence[Float[np.ndarray, " _"]],
        decoding: "Decoding | None" = None,
    ) -> list[list[Ranked]]:
        """The `n_best` captions of mono waveforms at the captioner's rate, chosen among at least
        `candidates`.
        """
        settings = decoding or captioner.config.decoding
        several = max(settings.n_best, self.candidates)
        rows = captioner.caption_waveforms(
            waveforms, settings.model_copy(update={"n_best": several})
        )
        ranked = self(waveforms, captioner.encoder.sample_rate, rows)
        return [row[: settings.n_best] for row in ranked]

    def __call__(
        self,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        rate: int,
        rows: "Sequence[Sequence[Caption]]",
    ) -> list[list[Ranked]]:
        """Each row of captions, those of one waveform at `rate` Hz, best first."""
        if self.encoder is None:
            second = [_agreements(row) for row in rows]
        else:
            second = self._cosines(waveforms, rate, rows)
        return [self._sorted(row, scores) for row, scores in zip(rows, second, strict=True)]

    def _sorted(self, row: "Sequence[Caption]", scores: list[float | None]) -> list[Ranked]:
        ranked = [
            Ranked(c.text, c.score, c.start_s, c.end_s, c.model, score)
            for c, score in zip(row, scores, strict=True)
        ]
        return sorted(ranked, key=self._merit, reverse=True)

    def _merit(self, caption: Ranked) -> float:
        if caption.rerank is None:
            return -math.inf
        own = math.log(max(caption.score, _LEAST))
        return (1 - self.weight) * own + self.weight * caption.rerank

    def _cosines(
        self,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        rate: int,
        rows: "Sequence[Sequence[Caption]]",
    ) -> list[list[float | None]]:
        """The cosine of each caption with its sound; one pass for all sounds, one for all texts."""
        import torch

        from earwitness import audio

        texts = sorted({c.text for row in rows for c in row if normalize(c.text)})
        if not texts:
            return [[None] * len(row) for row in rows]
        own_rate = self.encoder.sample_rate
        clips = [w if rate == own_rate else audio.load((w, rate), own_rate) for w in waveforms]
        sounds = [torch.from_numpy(np.ascontiguousarray(clip)).float() for clip in clips]
        kind = next(self.encoder.parameters()).device.type
        with torch.inference_mode(), torch.autocast(kind, enabled=False):
            cosines = self.encoder.embed_audio(sounds) @ self.encoder.embed_text(texts).T
        column = {text: number for number, text in enumerate(texts)}
        return [
            [float(found[column[c.text]]) if c.text in column else None for c in row]
            for row, found in zip(rows, cosines.cpu().numpy(), strict=True)
        ]


def consensus(
    texts: Sequence[str],
    log_probabilities: Sequence[float],
    agreement: "Callable[[str, str], float] | None" = None,
) -> list[float]:
    """How far each text agrees with the others: the mean over them, weighted by probability.

    The highest is the choice of minimum Bayes risk (Kumar and Byrne, 2004) among the candidates,
    with `agreement` (None: `overlap_f1`) as the gain. A text is not compared with itself, but with
    equal ones. A text without others gets 0.
    """
    gain = agreement or overlap_f1
    highest = max(log_probabilities, default=0.0)
    weights = [math.exp(value - highest) for value in log_probabilities]
    found = []
    for i, text in enumerate(texts):
        others = [j for j in range(len(texts)) if j != i]
        total = sum(weights[j] for j in others)
        gained = sum(weights[j] * gain(text, texts[j]) for j in others)
        found.append(gained / total if total else 0.0)
    return found


def overlap_f1(first: str, second: str) -> float:
    """F1 of the words and pairs of neighbouring words that two texts share, 0 to 1.

    Case and punctuation do not count; a word said twice counts twice.
    """
    left, right = _grams(first), _grams(second)
    size = left.total() + right.total()
    return 2 * (left & right).total() / size if size else 1.0


def clap_folders(name: str | Path) -> tuple[Path, Path | None]:
    """The folder of the embedding encoder that `name` stands for, and that of its frame encoder
    where it lies elsewhere.

    Raises:
        CheckpointError: there is none, or it reads no text.
    """
    from earwitness.encoders.embedding import is_embedding_folder
    from earwitness.models.weights import read_json

    try:
        folder, audio = model_folder(name), None
    except CheckpointError as error:
        raise CheckpointError(f"{error}, or {CONSENSUS!r}") from None
    if (folder / "earwitness.json").is_file():
        settings = read_json(folder / "earwitness.json")
        audio = part_folder(folder, "encoder/audio", settings)
        folder = part_folder(folder, "encoder", settings)
    if not is_embedding_folder(folder):
        raise CheckpointError(
            f"{name}: its encoder reads no text; to rerank, expected a Diffusion-Link model, the "
            f"folder of a dual encoder or of a Hugging Face CLAP, or {CONSENSUS!r}"
        )
    return folder, audio


def _agreements(row: "Sequence[Caption]") -> list[float | None]:
    """`consensus` among the captions that have words; None for the others."""
    spoken = [c for c in row if normalize(c.text)]
    logs = [math.log(max(c.score, _LEAST)) for c in spoken]
    scores = iter(consensus([c.text for c in spoken], logs))
    return [next(scores) if normalize(c.text) else None for c in row]


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = normalize(text).split()
    return Counter([*((word,) for word in words), *pairwise(words)])
