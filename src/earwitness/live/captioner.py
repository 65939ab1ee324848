"""The live captioner: samples in, in pieces of any length; captions and events out, with times.

It keeps only the last seconds of the stream, however long that lasts.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from earwitness.audio.levels import level_db
from earwitness.caption import CaptionsWaveforms, best_captions
from earwitness.captioning.pipeline import CaptionSettings, gated
from earwitness.captioning.segments import Window
from earwitness.live.activity import STEP_S, Activity, Stretch
from earwitness.live.events import CONTEXT_S, HOP_S, EventTrack
from earwitness.live.records import Report
from earwitness.live.tail import Tail
from earwitness.models.sound_events import FindsEvents
from earwitness.text import gist

_BEFORE_S = 0.5
_AFTER_S = 0.3
_SAME_SOUND_S = 1.5


@runtime_checkable
class CaptionsClips(CaptionsWaveforms, Protocol):
    """What a stream needs from a captioner."""

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""
        ...


@dataclass(frozen=True)
class LiveSettings:
    """How a stream is captioned: `caption` as for files (its windows are not used), a caption every
    `every` seconds of a continuing sound, and the minimum probability of an event.
    """

    caption: CaptionSettings = CaptionSettings()
    every: float = 10.0
    above: float = 0.5
    captions: bool = True
    events: bool = True


class LiveCaptioner:
    """Captions and events of one stream at the captioner's rate.

    A sound that stands out from the background is captioned when it is over, a longer one every
    `every` seconds; a caption that says the same as the previous one is not repeated. Without
    `classes` there are no events. A call takes a few hundredths of a second per second of sound.
    """

    def __init__(
        self,
        captioner: CaptionsClips,
        classes: FindsEvents | None,
        settings: LiveSettings | None = None,
    ) -> None:
        self.settings = settings or LiveSettings()
        self.rate = captioner.sample_rate
        self._captioner, self._classes = captioner, classes if self.settings.events else None
        self._every = min(self.settings.every, captioner.max_seconds - _BEFORE_S - _AFTER_S)
        self._room = round((max(self._every, CONTEXT_S) + _BEFORE_S + 2.0) * self.rate)
        self._step = round(STEP_S * self.rate)
        self._hop = round(HOP_S / STEP_S) * self._step
        self._last: tuple[tuple[str, ...], float] = ((), 0.0)
        self._begin(0)

    @property
    def seconds(self) -> float:
        """How far the stream has come, gaps included."""
        return self._tail.end / self.rate

    def feed(self, samples: Float32[np.ndarray, " T"]) -> list[Report]:
        """New reports after the next samples, mono, full scale 1. Raises like the captioner."""
        found: list[Report] = []
        while len(samples):
            # Step by step, so that reports do not depend on the pieces in which the sound arrives.
            size = self._step - (self._tail.end - self._base) % self._step
            found += self._take(samples[:size])
            samples = samples[size:]
        return found

    def finish(self) -> list[Report]:
        """What is still open at the end of the stream."""
        found = self._captions(self._activity.finish())
        if self._track is not None:
            found += self._track.look(self._recent(), self.seconds, final=True)
        return found

    def skip(self, seconds: float) -> list[Report]:
        """As `finish`; the stream then continues `seconds` later, after an unknown gap."""
        found = self.finish()
        self._begin(self._tail.end + round(seconds * self.rate))
        return found

    def _begin(self, base: int) -> None:
        self._base, self._tail = base, Tail(self._room, base)
        self._activity = Activity(self.rate, self.settings.caption.silence_db, self._every)
        self._track: EventTrack | None = None
        if self._classes is not None:
            self._track = EventTrack(self._classes, self.settings.above, judged=self.seconds)

    def _take(self, samples: np.ndarray) -> list[Report]:
        """At most one step of samples."""
        self._tail.add(samples)
        found = self._captions(self._activity.feed(samples))
        if self._track is not None and (self._tail.end - self._base) % self._hop == 0:
            found += self._track.look(self._recent(), self.seconds)
        return found

    def _recent(self) -> np.ndarray:
        """The sound in which events are looked for; empty if it is silent."""
        end = self._tail.end
        _, recent = self._tail.between(max(self._base, end - round(CONTEXT_S * self.rate)), end)
        loud = level_db(recent, self.rate) >= self.settings.caption.silence_db
        return recent if loud else recent[:0]

    def _captions(self, stretches: list[Stretch]) -> list[Report]:
        if not self.settings.captions:
            return []
        return [found for one in stretches if (found := self._caption(one)) is not None]

    def _caption(self, stretch: Stretch) -> Report | None:
        """The caption of a stretch; None if a gate closes or the last one said the same."""
        start, end = (self._base + place for place in stretch)
        before, after = round(_BEFORE_S * self.rate), round(_AFTER_S * self.rate)
        window = Window(*self._tail.between(start - before, end + after), whole=False)
        settings = self.settings.caption
        row = best_captions(
            self._captioner,
            [window.samples],
            settings.decoding or self._captioner.decoding,
            settings.reranker,
        )[0]
        segment = gated(window, self.rate, row, settings.min_score)
        if segment.gate is not None or segment.score is None:
            return None
        said, until = self._last
        begin, stop = start / self.rate, end / self.rate
        self._last = (gist(segment.caption), stop)
        if said == self._last[0] and begin - until <= _SAME_SOUND_S:
            return None
        return Report("caption", begin, stop, segment.caption, segment.score)
