"""Where reports go: the terminal, JSON lines, a WebVTT file that grows, and workers that may be
slow (a webhook, a command), each behind a short queue.
"""

import json
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from earwitness.captioning.locked import need_regular
from earwitness.captioning.sinks import print_out
from earwitness.captioning.subtitles import Cue, bracketed, stamp, vtt_block
from earwitness.errors import DataError

_WAITING = 100
_LAST_SECONDS = 15.0

LiveRecord = dict[str, Any]
"""a report as a JSON object: type, start, end, caption and score or event and probability, source,
and time (of the wall clock, ISO 8601) unless the source is a file"""


@runtime_checkable
class LiveSink(Protocol):
    """Takes records as they come."""

    def add(self, record: LiveRecord) -> None:
        """Takes a record at once."""
        ...

    def close(self) -> None:
        """Waits for what is on its way, for some seconds at most."""
        ...


class Terminal:
    """A line per report on standard output: JSON, or the time of day and the words."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def add(self, record: LiveRecord) -> None:
        """Prints the record. Raises DataError: standard output is closed or full."""
        print_out(_line(record) if self._as_json else f"{_words(record)}\n")

    def close(self) -> None:
        """Nothing is left to do."""


class JsonLines:
    """A JSON object per line, appended to a file."""

    def __init__(self, path: Path) -> None:
        """Raises DataError: the file cannot be written."""
        need_regular(path)
        self._path = path
        self._append("")

    def add(self, record: LiveRecord) -> None:
        """Appends the record. Raises DataError."""
        self._append(_line(record))

    def close(self) -> None:
        """Nothing is left to do."""

    def _append(self, text: str) -> None:
        append(self._path, text)


class GrowingVtt:
    """A WebVTT file to which each caption, and each event that is over, is appended as a cue.

    Players expect cues in order of start: one that would be out of order starts with the last.
    """

    def __init__(self, path: Path, overwrite: bool) -> None:
        """Raises DataError: the file exists and `overwrite` is not set, or cannot be written."""
        need_regular(path)
        if path.exists() and not overwrite:
            raise DataError(f"{path}: exists; choose another --output, or --overwrite")
        self._path, self._start = path, 0.0
        path.unlink(missing_ok=True)
        append(path, "WEBVTT\n\n")

    def add(self, record: LiveRecord) -> None:
        """Appends a cue. Raises DataError."""
        if "end" not in record:
            return
        self._start = max(self._start, record["start"])
        end = max(record["end"], self._start + 0.001)
        text = bracketed(record.get("caption") or record["event"])
        append(self._path, vtt_block(Cue(self._start, end, text)))

    def close(self) -> None:
        """Nothing is left to do."""


class Worker:
    """Passes records to `deliver` in its own thread; once 100 wait, the oldest is dropped.

    `deliver` returns what went wrong, None if nothing did; `say` gets that, and in the end how many
    records were lost.
    """

    def __init__(
        self, name: str, deliver: Callable[[LiveRecord], str | None], say: Callable[[str], None]
    ) -> None:
        self._name, self._deliver, self._say = name, deliver, say
        self.lost = 0
        """records that were dropped or could not be delivered"""
        self._queue: queue.Queue[LiveRecord | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="earwitness-sink", daemon=True)
        self._thread.start()

    def add(self, record: LiveRecord) -> None:
        """Puts the record into the queue."""
        while True:
            try:
                self._queue.put_nowait(record)
                return
            except queue.Full:
                self._drop()

    def close(self) -> None:
        """Waits until the queue is empty, 15 s at most."""
        end = time.monotonic() + _LAST_SECONDS
        with suppress(queue.Full):
            self._queue.put(None, timeout=_LAST_SECONDS)
        self._thread.join(max(0.0, end - time.monotonic()))
        waiting = max(0, self._queue.qsize() - 1) if self._thread.is_alive() else 0
        if self.lost + waiting:
            self._say(f"{self._name}: {self.lost + waiting} reports were lost")

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return
        if not self.lost:
            self._say(f"{self._name} is too slow: {_WAITING} reports wait, the oldest are lost")
        self.lost += 1

    def _work(self) -> None:
        while (record := self._queue.get()) is not None:
            problem = self._deliver(record)
            if problem is not None:
                self.lost += 1
                self._say(f"{self._name}: {problem}")


def append(path: Path, text: str) -> None:
    """Appends to a file. Raises DataError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None


def _line(record: LiveRecord) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _words(record: LiveRecord) -> str:
    clock = record["time"][11:19] if "time" in record else stamp(record["start"], ".")
    if record["type"] == "caption":
        return f"{clock}  {record['caption']}"
    if record["type"] == "start":
        return f"{clock}  {bracketed(record['event'])} {record['probability']:.2f}"
    seconds = record["end"] - record["start"]
    return f"{clock}  {bracketed(record['event'])} over after {seconds:.1f} s"
