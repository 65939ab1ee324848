"""What `earwitness listen` does: its captioner, its filter, and where reports go."""

import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np

from earwitness.captioning.captioner import Captioner
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import settings_for
from earwitness.cli.outputs import by_ending
from earwitness.config import validate
from earwitness.errors import ConfigError
from earwitness.io.names import for_terminal
from earwitness.io.webhook import check_address, post
from earwitness.live.captioner import LiveCaptioner, LiveSettings
from earwitness.live.command import Command
from earwitness.live.filters import Filter, class_head, wanted_sounds
from earwitness.live.listening import Listener
from earwitness.live.microphone import Microphone, check_installed, devices
from earwitness.live.mqtt import Mqtt
from earwitness.live.records import Report
from earwitness.live.sinks import GrowingVtt, JsonLines, LiveSink, Terminal, Worker
from earwitness.live.sources import SoundFile, Source


def list_devices() -> None:
    """Prints the microphones. Raises MissingDependencyError and ConfigError."""
    print("\n".join(devices()))


def say(sentence: str) -> None:
    """One line on stderr."""
    with suppress(OSError):
        print(for_terminal(f"earwitness: {sentence}"), file=sys.stderr, flush=True)


@dataclass
class ListenJob:
    """A source, what is reported about it, and where."""

    source: Source
    model: str
    device: str
    on: str | None
    above: float
    cool_down: float
    only: Literal["captions", "events"] | None
    every: float
    silence: float
    sinks: list[LiveSink] = field(default_factory=list[LiveSink])

    def check(self, outputs: Sequence[Path], webhook: str | None, run: str | None) -> None:
        """Checks everything that needs no model.

        Raises MissingDependencyError if a microphone cannot be read, and ConfigError for outputs
        that cannot be used.
        """
        if isinstance(self.source, Microphone):
            check_installed()
        self._paths = by_ending(outputs, (".jsonl", ".vtt"))
        if webhook is not None:
            check_address(webhook, "--webhook")
        self._webhook, self._command = webhook, None if run is None else Command(run)

    def load(self) -> None:
        """Loads the model. Raises CheckpointError, and ConfigError for unknown sounds."""
        captioner = Captioner.load(self.model, self.device)
        classes = class_head(captioner)
        if classes is None and self.only == "events":
            raise ConfigError(f"{captioner.name} has no class head: it cannot find events")
        if classes is None:
            say(f"{captioner.name} has no class head: only captions are reported, not events")
        wanted = wanted_sounds(self.on, classes)
        for one in wanted:
            if one.names and [one.phrase.lower()] != [name.lower() for name in one.names]:
                say(f"{one.phrase!r} stands for {', '.join(repr(name) for name in one.names)}")
        options = validate(CaptionOptions, {"silence": self.silence}, "the options")
        settings = LiveSettings(
            settings_for(options, captioner),
            self.every,
            self.above,
            captions=self.only != "events",
            events=self.only != "captions",
        )
        self._live = LiveCaptioner(captioner, classes, settings)
        # The first caption takes longer, so make it before the first sound.
        captioner.caption_waveforms([np.zeros(captioner.sample_rate, np.float32)])
        self._filter = Filter(wanted, self.cool_down)

    def open(self, overwrite: bool, as_json: bool, quiet: bool) -> None:
        """Opens the files and the terminal, the webhook and the program. Raises DataError."""
        if not quiet:
            self.sinks.append(Terminal(as_json))
        if ".jsonl" in self._paths:
            self.sinks.append(JsonLines(self._paths[".jsonl"]))
        if ".vtt" in self._paths:
            self.sinks.append(GrowingVtt(self._paths[".vtt"], overwrite))
        if (url := self._webhook) is not None:
            self.sinks.append(Worker("--webhook", lambda record: post(url, record), say))
        if self._command is not None:
            self.sinks.append(Worker(self._command.name, self._command.deliver, say))

    def open_mqtt(self, url: str, home_assistant: bool) -> None:
        """Connects to the broker. Raises ConfigError and MissingDependencyError."""
        self.sinks.append(Mqtt(url, say, self._filter.wanted, home_assistant))

    def run(self, stall: float, retries: int | None, duration: float | None) -> None:
        """Listens until the source ends or a signal arrives. Raises AudioError and DataError."""
        listener = Listener(
            self.source,
            self._live,
            self._report,
            say,
            stall,
            retries,
            float("inf") if duration is None else duration,
        )
        say(f"listening to {self.source.name}")
        try:
            with _stopping(listener.stop):
                listener.run()
        finally:
            for sink in self.sinks:
                sink.close()

    def _report(self, reports: Sequence[Report]) -> None:
        now = datetime.now(UTC).astimezone()
        for report in reports:
            if not self._filter.passes(report):
                continue
            at = report.end if report.kind == "end" and report.end else report.start
            record = report.as_dict() | {"source": self.source.name}
            if not isinstance(self.source, SoundFile):
                clock = now - timedelta(seconds=self._live.seconds - at)
                record["time"] = clock.isoformat(timespec="milliseconds")
            for sink in self.sinks:
                sink.add(record)


@contextmanager
def _stopping(stop: threading.Event) -> Generator[None]:
    """A context in which the first SIGINT or SIGTERM sets `stop`; a second ends the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
