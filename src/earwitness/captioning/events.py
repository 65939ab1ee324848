"""Sound events of whole files with their borders: read in blocks, joined over their edges."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.audio.loading import unnoted
from earwitness.audio.sound import Note
from earwitness.audio.tracks import Track
from earwitness.captioning.subtitles import Cue, to_srt
from earwitness.models.sound_classes import SoundEvent

EventFormat = Literal["json", "csv", "labels", "srt"]

_BLOCK_S = 30.0


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
        for event in classes.events(block, threshold):
            times = start + event.start_s, min(start + event.end_s, end)
            found.append(event._replace(start_s=times[0], end_s=times[1]))
        start = end
    return joined(found)


def joined(events: Iterable[SoundEvent]) -> list[SoundEvent]:
    """Events of one class that touch, such as over the edge of two blocks, as one."""
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


def as_rows(events: Sequence[SoundEvent]) -> list[dict[str, Any]]:
    """The events as JSON objects: start, end, event, probability."""
    return [
        {
            "start": round(event.start_s, 3),
            "end": round(event.end_s, 3),
            "event": event.name,
            "probability": round(event.probability, 4),
        }
        for event in events
    ]


def written(name: str, events: Sequence[SoundEvent], form: EventFormat) -> str:
    """The events of the file `name` as text: a JSON line, CSV rows (file, start, end, event,
    probability), labels for Audacity (start, end and name, tab-separated), or SubRip.
    """
    if form == "json":
        record = {"file": name, "events": as_rows(events)}
        return json.dumps(record, ensure_ascii=False) + "\n"
    if form == "labels":
        lines = (f"{event.start_s:.3f}\t{event.end_s:.3f}\t{event.name}\n" for event in events)
        return "".join(lines)
    if form == "srt":
        return to_srt([Cue(event.start_s, event.end_s, f"[{event.name}]") for event in events])
    table = io.StringIO()
    for event in events:
        times = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        row = [name, *times, event.name, f"{event.probability:.4f}"]
        csv.writer(table, lineterminator="\n").writerow(row)
    return table.getvalue()


CSV_HEAD = "file,start,end,event,probability\n"
