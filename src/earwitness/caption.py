"""Captions, decoding settings, and the methods that turn a sound into a caption.

Nothing here depends on the backend: torch and ONNX captioners share this module.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from os import PathLike
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from jaxtyping import Float

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.audio.levels import SILENCE_DB, level_db, sounding, without_offset
from earwitness.audio.tracks import Track
from earwitness.decoding import Decoding as Decoding
from earwitness.errors import CheckpointError, ConfigError
from earwitness.io.kinds import is_tuple
from earwitness.models.sound_classes import SoundClassifier
from earwitness.models.sound_events import SoundEvent, events_in

Precision = Literal["fp32", "int8", "bf16", "fp16"]
"""the number format a model computes in"""

NOTHING = "no distinct sound"
"""the caption of silence, and of anything that a gate rejects"""

_SEVERAL: tuple[type[object], ...] = (list, Iterator)


@dataclass(frozen=True)
class Caption:
    """A sentence for a sound.

    `score` is the geometric mean of the token probabilities, 0 to 1. `start_s` and `end_s` are in
    seconds. `rerank` is the second score, used for reranking: the cosine similarity of sound and
    caption, or the mean agreement with the other candidates; None without reranking, and for a
    caption without words. `heard` is when the sounds it names start and end, in seconds of the
    clip; None if no class head hears any of them.
    """

    text: str
    score: float
    start_s: float
    end_s: float
    model: str
    rerank: float | None = None
    heard: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name; `rerank` and `heard` only if they are set."""
        fields = asdict(self)
        return {k: v for k, v in fields.items() if v is not None or k not in ("rerank", "heard")}


class BridgeEffect(NamedTuple):
    """Captions and embeddings of a sound: first without the model's bridge, then with it."""

    captions: tuple[Caption, Caption]
    embeddings: Float[np.ndarray, "2 C"]
    """as the language model receives them; compare their directions"""


@runtime_checkable
class CaptionsWaveforms(Protocol):
    """The minimum that reranking needs from a captioner."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        ...

    @property
    def decoding(self) -> Decoding:
        """The model's own search settings."""
        ...

    def caption_waveforms(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        """The n-best captions of each waveform."""
        ...


@runtime_checkable
class Reranks(Protocol):
    """Chooses among the candidates of a captioner."""

    def captions(
        self,
        captioner: CaptionsWaveforms,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        decoding: Decoding | None = None,
    ) -> list[list[Caption]]:
        """The n-best captions of each waveform, ordered by both scores."""
        ...


@runtime_checkable
class AudioTextEncoder(Protocol):
    """A CLAP model: sounds and sentences as unit vectors in one space, in NumPy."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        ...

    def embed_audio(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of mono waveforms of any length."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of sentences."""
        ...


class CaptionCalls:
    """The public methods of every captioner, all built on `caption_together`."""

    name: str
    own_rerank: Reranks | None = None
    """how captions are chosen unless a call says otherwise"""
    classes: SoundClassifier | None = None
    """the class head over the encoder's frames; None for a model without one"""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Sample rate in Hz of the waveforms that the model expects."""

    @property
    @abstractmethod
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""

    @property
    @abstractmethod
    def decoding(self) -> Decoding:
        """The model's own search settings."""

    @property
    @abstractmethod
    def batch_hint(self) -> int:
        """How many clips to caption together now; may change as memory use becomes known."""

    @abstractmethod
    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of one batch of mono waveforms at `sample_rate`, best first."""

    def caption_waveforms(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms at `sample_rate`, best first.

        A waveform's captions do not depend on the other waveforms.
        """
        settings = decoding or self.decoding
        if settings.batches:
            return self.caption_together(waveforms, settings) if waveforms else []
        return [row for one in waveforms for row in self.caption_together([one], settings)]

    def caption(
        self,
        source: AudioSource,
        *,
        decoding: Decoding | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> Caption:
        """The best caption of one sound: a path, bytes, a binary file, or (samples, sample rate).

        Silence (below -60 dB) gives "no distinct sound" with a score of 0. `track` selects an audio
        track by its number from 1 or its language ("eng"); None is the file's default.

        Raises:
            AudioError: the sound cannot be read.
            ConfigError: `source` is a list, a tuple of paths, or a generator.
        """
        _check_one(source)
        return self._n_best([source], decoding, rerank, track)[0][0]

    def n_best(
        self,
        source: AudioSource,
        count: int = 5,
        *,
        decoding: Decoding | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> list[Caption]:
        """The `count` best captions of one sound, best first. Raises the errors of `caption`."""
        _check_one(source)
        settings = (decoding or self.decoding).model_dump() | {"n_best": count}
        return self._n_best([source], Decoding.model_validate(settings), rerank, track)[0]

    def caption_batch(
        self,
        sources: Iterable[AudioSource],
        *,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> list[Caption]:
        """The best caption of each sound, in order; sources as in `caption`.

        Sounds are read as needed, `batch_size` at a time (None: the model's choice). A caption does
        not depend on the other sounds.

        Raises:
            AudioError: a sound cannot be read; `earwitness caption` continues past such files.
            ConfigError: `sources` is one sound, or `batch_size` is below 1.
        """
        if isinstance(sources, str | bytes | bytearray) or is_pair(sources):
            raise ConfigError("caption_batch takes several sounds, got one; use caption instead")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"expected a batch size of at least 1, got {batch_size}")
        found: list[Caption] = []
        arriving = iter(sources)
        while part := list(islice(arriving, batch_size or self.batch_hint)):
            for source in part:
                _check_one(source)
            found += [row[0] for row in self._n_best(part, decoding, rerank, track)]
        return found

    def events(self, source: AudioSource, threshold: float = 0.5) -> list[SoundEvent]:
        """The sound events in a sound of any length, ordered by start: AudioSet's name, start and
        end in seconds (in steps of 160 ms for the pocket models), and peak probability.

        A class is an event where its probability in the second around it is at least `threshold`.

        Raises:
            AudioError: the sound cannot be read.
            CheckpointError: the model has no class head.
            ConfigError: `threshold` is outside 0 to 1, or `source` is several sounds.
        """
        _check_one(source)
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"expected a threshold from 0 to 1, got {threshold:g}")
        if self.classes is None:
            raise CheckpointError(f"{self.name}: no class head (classes.json) next to its encoder")
        return events_in(self.classes, source, threshold)

    def _n_best(
        self,
        sources: list[AudioSource],
        decoding: Decoding | None,
        rerank: Reranks | None,
        track: Track,
    ) -> list[list[Caption]]:
        waveforms = [
            audio.load(source, self.sample_rate, max_seconds=self.max_seconds, track=track)
            for source in sources
        ]
        rate, settings = self.sample_rate, decoding or self.decoding
        loud = [level_db(waveform, rate) >= SILENCE_DB for waveform in waveforms]
        audible = [waveform for waveform, is_loud in zip(waveforms, loud, strict=True) if is_loud]
        chosen = rerank or default_rerank(self, settings)
        rows = iter(best_captions(self, audible, settings, chosen) if audible else [])
        return [
            next(rows) if is_loud else [Caption(NOTHING, 0.0, 0.0, len(w) / rate, self.name)]
            for w, is_loud in zip(waveforms, loud, strict=True)
        ]


def default_rerank(captioner: object, settings: Decoding) -> Reranks | None:
    """The captioner's own reranker; None for sampled captions, and for a beam of 1, which is chosen
    for speed.
    """
    if settings.sample or settings.beam_size == 1:
        return None
    return getattr(captioner, "own_rerank", None)


def best_captions(
    captioner: CaptionsWaveforms,
    waveforms: Sequence[Float[np.ndarray, " _"]],
    decoding: Decoding,
    rerank: Reranks | None = None,
) -> list[list[Caption]]:
    """The n-best captions of each waveform, reranked if `rerank` is given.

    A constant offset that is stronger than the sound is removed first, and silence at either end.
    """
    rate = captioner.sample_rate
    waveforms = [without_offset(waveform, rate) for waveform in waveforms]
    parts = [sounding(waveform, rate) for waveform in waveforms]
    heard = [waveform[part] for waveform, part in zip(waveforms, parts, strict=True)]
    if rerank is None:
        rows = captioner.caption_waveforms(heard, decoding)
    else:
        rows = rerank.captions(captioner, heard, decoding)
    return [
        [_placed(caption, part.start / rate, len(waveform) / rate) for caption in row]
        for row, part, waveform in zip(rows, parts, waveforms, strict=True)
    ]


def _placed(caption: Caption, lead: float, seconds: float) -> Caption:
    """A caption of a part of a sound of `seconds`, which starts `lead` seconds into it."""
    heard = caption.heard and (caption.heard[0] + lead, caption.heard[1] + lead)
    return replace(caption, end_s=seconds, heard=heard)


def is_pair(source: object) -> TypeGuard[tuple[Any, int | float | np.number]]:
    """Whether `source` looks like (samples, sample rate)."""
    return is_tuple(source) and len(source) == 2 and isinstance(source[1], int | float | np.number)


def _check_one(source: object) -> None:
    """Raises ConfigError for several sounds instead of one."""
    several = not hasattr(source, "read") and isinstance(source, _SEVERAL)
    if is_tuple(source) and source and not is_pair(source):
        several = all(isinstance(one, str | bytes | PathLike | tuple) for one in source)
    if several:
        raise ConfigError(
            f"caption takes one sound, got a {type(source).__name__}; use caption_batch instead"
        )
