"""Captions reranked by the sounds that a class head hears: a caption whose sounds are not heard
loses, and if no candidate names what is clearly heard, the class's own sentence is the answer.

This step is in neither paper and changes no model. The head was fitted on recordings of single
sounds, so that it knows sounds that captions seldom mention on their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from earwitness import audio
from earwitness.caption import NOTHING, Caption, CaptionsWaveforms, Decoding
from earwitness.captioning.rerank import agreements
from earwitness.models.sound_classes import Heard
from earwitness.text import normalize

EVENTS = "events"
"""the name of this reranker"""

FEWEST = 4
"""the minimum number of captions compared: as many as the pocket models' beams; more is worse"""

WEIGHT = 1.0
"""the weight of a caption's support, relative to its agreement with the others"""

LEAST_SUPPORT, LEAST_PROBABILITY = 0.2, 0.3
"""below this support, no candidate names what is heard; from this probability on, something is"""

SURE_PROBABILITY = 0.5
"""from this probability on, a sound is so clear that the answer must name it"""


@runtime_checkable
class SoundClasses(Protocol):
    """Finds the sound classes in waveforms."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        ...

    @property
    def sentences(self) -> Sequence[Sequence[str]]:
        """For each class, the sentences that describe it alone."""
        ...

    @property
    def words(self) -> Sequence[frozenset[str]]:
        """For each class, the words that a caption names it by."""
        ...

    @property
    def least_score(self) -> float:
        """The probability of being right below which a caption is not shown."""
        ...

    def chance(self, support: float) -> float:
        """The probability that a caption is right if its sounds have the probability `support`."""
        ...

    def heard(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Heard:
        """The class probabilities of each waveform, and the frames they come from."""
        ...

    def span(
        self, h: Float[np.ndarray, "N D"], named: Bool[np.ndarray, " K"]
    ) -> tuple[float, float] | None:
        """When the sounds of the classes `named` start and end in a clip, in seconds."""
        ...


@dataclass(frozen=True)
class EventReranker:
    """Orders captions by agreement with the other candidates, plus `weight` times their support:
    the probability of the classes that a caption names, at most 1. It is the `rerank` score.
    """

    classes: SoundClasses = field(repr=False, compare=False)
    weight: float = WEIGHT
    candidates: int = FEWEST
    name: str = EVENTS
    as_score: bool = False
    """True: the calibrated support becomes the caption's `score`, and the answer is "no distinct
    sound" if the best caption's is too low. False: the support is its second score.
    """

    @classmethod
    def load(cls, model: Path | str = "pocket-lamb", device: str = "cpu") -> "EventReranker":
        """A reranker with the class head of a model's frame encoder.

        Raises:
            CheckpointError: there is no such model, or its encoder has no class head.
        """
        from earwitness.captioning.captioner import sound_classes

        return cls(sound_classes(model, device))

    def captions(
        self,
        captioner: CaptionsWaveforms,
        waveforms: Sequence[Float[np.ndarray, " _"]],
        decoding: Decoding | None = None,
    ) -> list[list[Caption]]:
        """The `n_best` captions of mono waveforms at the captioner's rate."""
        settings = decoding or captioner.decoding
        several = max(settings.n_best, self.candidates)
        rows = captioner.caption_waveforms(
            waveforms, settings.model_copy(update={"n_best": several})
        )
        rate, own_rate = captioner.sample_rate, self.classes.sample_rate
        clips = [w if rate == own_rate else audio.load((w, rate), own_rate) for w in waveforms]
        found = [
            self._with_times(self.ordered(row, one, np.maximum(one, part))[: settings.n_best], h)
            for row, one, part, h in zip(rows, *self.classes.heard(clips), strict=True)
        ]
        return [self._scored(row) for row in found] if self.as_score else found

    def _with_times(self, row: list[Caption], h: Float[np.ndarray, "N D"]) -> list[Caption]:
        return [replace(one, heard=self.classes.span(h, self.named(one.text))) for one in row]

    def _scored(self, row: list[Caption]) -> list[Caption]:
        chances = [self.classes.chance(caption.rerank or 0.0) for caption in row]
        scored = [
            replace(caption, score=chance, rerank=None)
            for caption, chance in zip(row, chances, strict=True)
        ]
        if not scored or scored[0].score >= self.classes.least_score:
            return scored
        return [replace(scored[0], text=NOTHING), *scored[1:]]

    def ordered(
        self,
        row: Sequence[Caption],
        whole: Float[np.ndarray, " K"],
        anywhere: Float[np.ndarray, " K"],
    ) -> list[Caption]:
        """The captions of one sound, best first; if the best does not name what is clearly heard,
        preceded by that class's sentence.
        """
        supports = [self.support(caption.text, anywhere) for caption in row]
        agreed = [value or 0.0 for value in agreements(row)]
        merits = [a + self.weight * s for a, s in zip(agreed, supports, strict=True)]
        order = sorted(range(len(row)), key=lambda n: merits[n], reverse=True)
        found = [replace(row[n], rerank=supports[n]) for n in order]
        likeliest = int(whole.argmax())
        sure = float(whole[likeliest])
        if found and self._misses(found[0], likeliest, sure):
            text = self.classes.sentences[likeliest][0]
            support = max(sure, self.support(text, anywhere))
            found.insert(0, replace(found[0], text=text, score=sure, rerank=support))
        return found

    def _misses(self, best: Caption, likeliest: int, sure: float) -> bool:
        """Whether the best candidate does not name what is clearly heard."""
        if (best.rerank or 0.0) < LEAST_SUPPORT and sure >= LEAST_PROBABILITY:
            return True
        words = normalize(best.text).split()
        return sure >= SURE_PROBABILITY and self.classes.words[likeliest].isdisjoint(words)

    def support(self, text: str, probabilities: Float[np.ndarray, " K"]) -> float:
        """The probability of the classes that a caption names, at most 1."""
        return min(1.0, float(probabilities[self.named(text)].sum()))

    def named(self, text: str) -> Bool[np.ndarray, " K"]:
        """The classes that a caption names."""
        words = set(normalize(text).split())
        return np.array([not words.isdisjoint(names) for names in self.classes.words])
