"""Sound events as text: JSON, CSV, Audacity labels, SubRip."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

from earwitness.captioning.subtitles import Cue, to_srt
from earwitness.models.sound_events import SoundEvent

EventFormat = Literal["json", "csv", "labels", "srt"]


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
    probability), Audacity labels (start, end and name, tab-separated), or SubRip.
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
