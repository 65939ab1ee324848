"""Listening to a source: a thread reads it, the caller's thread captions; nothing piles up."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from earwitness.errors import AudioError, EarwitnessError
from earwitness.live.captioner import LiveCaptioner
from earwitness.live.containers import CONNECT_S
from earwitness.live.records import Report
from earwitness.live.sources import Source, samples

_HELD = 256  # pieces of sound, 0.1 s or less each, that wait for the captioner
_TICK_S = 0.2
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_STEADY_S = 30.0


class Pump(threading.Thread):
    """Reads a source into a queue of fixed length.

    If the captioner is too slow, a real-time source loses its oldest sound; a pipe or a file waits.
    """

    def __init__(self, source: Source, rate: int) -> None:
        super().__init__(name="earwitness-source", daemon=True)
        self._source, self._rate = source, rate
        self.queue: queue.Queue[np.ndarray | EarwitnessError | None] = queue.Queue(_HELD)
        """pieces of sound; at the end None, or the error that ended it"""
        self.dropped = 0
        """samples dropped because the captioner was too slow"""
        self._stop = threading.Event()

    def run(self) -> None:
        """Reads until the source ends or `stop` is called."""
        last: EarwitnessError | None = None
        try:
            for piece in samples(self._source, self._rate):
                if self._stop.is_set():
                    return
                self._put(piece)
        except EarwitnessError as error:
            last = error
        self._put(last)

    def stop(self) -> None:
        """Asks the thread to end; it does so at the next piece of sound."""
        self._stop.set()

    def _put(self, item: np.ndarray | EarwitnessError | None) -> None:
        while not self._stop.is_set():
            try:
                self.queue.put(item, timeout=_TICK_S if not self._source.reconnects else 0)
                return
            except queue.Full:
                if self._source.reconnects:
                    self._drop()

    def _drop(self) -> None:
        try:
            old = self.queue.get_nowait()
        except queue.Empty:
            return
        self.dropped += len(old) if isinstance(old, np.ndarray) else 0


@dataclass
class Listener:
    """Listens to a source until it ends, `stop` is set, or `longest` seconds of it have passed.

    A source that reconnects is retried, after 1 s, 2 s, 4 s and so on up to a minute, at most
    `retries` times in a row (None: forever). After `stall` seconds without sound it counts as
    lost, 10 s later if none has arrived yet; a pipe is waited for. `say` gets a sentence for each
    of these, `report` what is heard.
    """

    source: Source
    live: LiveCaptioner
    report: Callable[[Sequence[Report]], None]
    say: Callable[[str], None]
    stall: float = 10.0
    retries: int | None = None
    longest: float = float("inf")
    stop: threading.Event = field(default_factory=threading.Event)
    _arrived: float = 0.0
    _stalled: bool = False
    _patience: float = 0.0

    def run(self) -> None:
        """Listens. Raises AudioError: the source failed, and no retry is left."""
        wait, tries = _FIRST_WAIT_S, 0
        while True:
            began = time.monotonic()
            self._arrived = began
            error = self._connected()
            if self._over():
                break
            if error is None and not self.source.reconnects:
                self.say(f"{self.source.name} ended")
                break
            self.report(self.live.skip(0.0))
            if time.monotonic() - began > _STEADY_S:
                wait, tries = _FIRST_WAIT_S, 0
            reason = str(error) if error else f"{self.source.name} ended"
            tries += 1
            if not self.source.reconnects or (self.retries is not None and tries > self.retries):
                raise error or AudioError(reason)
            self.say(f"{reason}; trying again in {wait:g} s")
            if self.stop.wait(wait):
                break
            wait = min(2 * wait, _LONGEST_WAIT_S)
            self.live.skip(time.monotonic() - self._arrived)
        self.report(self.live.finish())

    def _over(self) -> bool:
        return self.stop.is_set() or self.live.seconds >= self.longest

    def _connected(self) -> EarwitnessError | None:
        """Captions until the source ends; the error that ended it, if there is one."""
        pump = Pump(self.source, self.live.rate)
        pump.start()
        self._stalled, self._patience = False, self.stall + CONNECT_S
        try:
            while not self._over():
                try:
                    item = pump.queue.get(timeout=_TICK_S)
                except queue.Empty:
                    if self._is_lost():
                        return AudioError(f"{self.source.name} sent no sound for {self.stall:g} s")
                    continue
                if not isinstance(item, np.ndarray):
                    return item
                self._take(item)
                if pump.dropped > self.live.rate:
                    seconds, pump.dropped = pump.dropped / self.live.rate, 0
                    self.say(f"too slow for {self.source.name}: {seconds:.1f} s were dropped")
            return None
        finally:
            pump.stop()

    def _is_lost(self) -> bool:
        """Whether to retry a source without sound; for a pipe it is only reported, once."""
        if self._stalled or time.monotonic() - self._arrived < self._patience:
            return False
        if self.source.reconnects:
            return True
        self._stalled = True
        self.say(f"{self.source.name} has sent no sound for {self.stall:g} s; waiting for it")
        self.report(self.live.skip(0.0))
        return False

    def _take(self, piece: np.ndarray) -> None:
        if self._stalled:
            self._stalled = False
            self.say(f"{self.source.name} sends sound again")
            self.live.skip(time.monotonic() - self._arrived)
        self._arrived, self._patience = time.monotonic(), self.stall
        left = self.longest - self.live.seconds
        if left < len(piece) / self.live.rate:
            piece = piece[: round(left * self.live.rate)]
        self.report(self.live.feed(piece))
