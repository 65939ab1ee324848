"""Sound events with their borders: of whole files, read in blocks and joined across their edges."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.audio.levels import without_offset
from earwitness.audio.loading import unnoted
from earwitness.audio.sound import Note
from earwitness.audio.tracks import Track

_BLOCK_S = 30.0


class SoundEvent(NamedTuple):
    """A sound of an AudioSet class from `start_s` to `end_s`, and its highest probability."""

    name: str
    label: str
    start_s: float
    end_s: float
    probability: float


@runtime_checkable
class FindsEvents(Protocol):
    """A class head over the frames of an encoder."""

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms."""
        ...

    def events(self, waveform: Float[np.ndarray, " T"], threshold: float = 0.5) -> list[SoundEvent]:
        """The events of a waveform in order of their start."""
        ...


def events_in(
    classes: FindsEvents,
    source: AudioSource,
    threshold: float,
    *,
    track: Track = None,
    note: Note = unnoted,
) -> list[SoundEvent]:
    """The events of one sound of any length, in order of their start.

    `track` and `note` are those of `audio.load`. Raises AudioError.
    """
    found: list[SoundEvent] = []
    start = 0.0
    for block in audio.stream(source, classes.sample_rate, _BLOCK_S, track=track, note=note):
        end = start + len(block) / classes.sample_rate
        heard = without_offset(block, classes.sample_rate)
        for event in classes.events(heard, threshold):
            times = start + event.start_s, min(start + event.end_s, end)
            found.append(event._replace(start_s=times[0], end_s=times[1]))
        start = end
    return joined(found)


def joined(events: Iterable[SoundEvent]) -> list[SoundEvent]:
    """Events of one class that touch, such as across the edge of two blocks, as one."""
    found: list[SoundEvent] = []
    last: dict[str, int] = {}
    for event in sorted(events, key=lambda one: one.start_s):
        place = last.get(event.label)
        if place is not None and event.start_s - found[place].end_s < 1e-6:
            before = found[place]
            highest = max(before.probability, event.probability)
            found[place] = before._replace(end_s=event.end_s, probability=highest)
        else:
            last[event.label] = len(found)
            found.append(event)
    return found
