"""Sounds decoded by threads while the model works, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event
from typing import NamedTuple, TypeAlias

from earwitness import audio
from earwitness.captioning.segments import Window, Windows, cut
from earwitness.captioning.sources import Source
from earwitness.errors import AudioError, EarwitnessError, unexpected

_WINDOWS_HELD = 8
"""the most windows of one long sound that wait for the model"""
_BLOCK_SECONDS = 2.0
_POLL_SECONDS = 0.2
_THREADS = min(4, os.cpu_count() or 1)


class End(NamedTuple):
    """The end of a sound that was read in full: its length, and notes on anything odd about it."""

    seconds: float
    notes: tuple[str, ...] = ()


Item: TypeAlias = Window | End | EarwitnessError
"""what a sound yields: windows, then its end or the error that ended it"""


def read_ahead(
    sources: Sequence[Source],
    rate: int,
    windows: Windows,
    *,
    ahead: int = 16,
    threads: int = _THREADS,
    track: int | str | None = None,
) -> Generator[tuple[int, Item], None, None]:
    """Yields (index of the source, item), source by source, reading up to `ahead` sources at once.

    A source that cannot be read yields its error as an item; the others continue. `track` is as in
    `audio.stream`.
    """
    stop = Event()
    waiting: deque[tuple[int, Queue[Item], Future[None]]] = deque()
    numbered = iter(enumerate(sources))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="earwitness-read")

    def submit(count: int) -> None:
        for index, source in islice(numbered, count):
            queue: Queue[Item] = Queue(_WINDOWS_HELD)
            future = pool.submit(_read, source, rate, windows, track, queue, stop)
            waiting.append((index, queue, future))

    try:
        submit(max(1, ahead))
        while waiting:
            index, queue, future = waiting.popleft()
            for item in _items(queue, future):
                yield index, item
            submit(1)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _read(
    source: Source,
    rate: int,
    windows: Windows,
    track: int | str | None,
    queue: "Queue[Item]",
    stop: Event,
) -> None:
    """Puts the items of one source into its queue."""
    end = 0
    notes: list[str] = []
    try:
        if source.problem is not None:
            raise AudioError(source.problem)
        blocks = audio.stream(source.audio, rate, _BLOCK_SECONDS, track=track, note=notes.append)
        for window in cut(blocks, rate, windows):
            end = window.start + len(window.samples)
            if not _put(queue, window, stop):
                return
    except EarwitnessError as error:
        _put(queue, error, stop)
        return
    except Exception as error:
        _put(queue, unexpected(source.name, error), stop)
        return
    _put(queue, End(end / rate, tuple(notes)), stop)


def _put(queue: "Queue[Item]", item: Item, stop: Event) -> bool:
    """Queues the item; False if the job was stopped before there was room."""
    while not stop.is_set():
        try:
            queue.put(item, timeout=_POLL_SECONDS)
        except Full:
            continue
        return True
    return False


def _items(queue: "Queue[Item]", future: "Future[None]") -> Iterator[Item]:
    """The items of one source, up to and including its end or error."""
    while True:
        try:
            item = queue.get(timeout=_POLL_SECONDS)
        except Empty:
            if future.done() and queue.empty():
                # Nothing more will come.
                future.result()
                raise AssertionError("a reader ended without an end or an error") from None
            continue
        yield item
        if not isinstance(item, Window):
            return
