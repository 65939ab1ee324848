"""The running service: uploads in, segments out while the sound is still being read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from earwitness import audio
from earwitness.captioning.captioner import Captioner, Explains
from earwitness.captioning.local import Heard, Listening, gated
from earwitness.captioning.rerank import CANDIDATES, CLAP_WEIGHT, CONSENSUS, Reranker
from earwitness.captioning.segments import Segment, Window, cover, cut, level_db, merge
from earwitness.errors import AudioTooLargeError
from earwitness.serve.batching import Batcher
from earwitness.serve.bridging import BridgeView, Bridging
from earwitness.serve.metrics import Metrics
from earwitness.serve.settings import Settings

_BLOCK_SECONDS = 10.0
_NAME_LENGTH = 80


@dataclass
class Upload:
    """A sound that a request brought: its name, cut to a sane length, and its bytes."""

    name: str
    file: BinaryIO

    def __post_init__(self) -> None:
        self.name = self.name[-_NAME_LENGTH:] or "the upload"

    def read(self, size: int, /) -> bytes:
        """The next bytes of the file."""
        return self.file.read(size)


@dataclass
class Progress:
    """What is known of a sound while it is being heard."""

    seconds: float = 0.0
    whole: bool = True


class Service:
    """A captioner behind a queue: what the HTTP endpoints and the web page call."""

    def __init__(
        self, captioner: Captioner, settings: Settings, reranker: Reranker | None = None
    ) -> None:
        self.captioner, self.settings, self.metrics = captioner, settings, Metrics()
        self.min_score = captioner.min_score
        self.rerankers = _rerankers(captioner, reranker, min(CANDIDATES, settings.max_beams))
        """by the name under which a request may ask for it"""
        self.bridging = Bridging.of(captioner)
        self.ready = self.draining = False
        self.in_flight = 0
        self._batcher: Batcher | None = None
        self._decoders: ThreadPoolExecutor | None = None

    @property
    def batcher(self) -> Batcher:
        """The queue of the running service."""
        assert self._batcher is not None, "outside Service.running()"
        return self._batcher

    @property
    def has_guide(self) -> bool:
        """Whether the model has a Token Guide."""
        return isinstance(self.captioner, Explains) and self.captioner.has_guide

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The service with its threads; ready once the model has captioned a second of noise."""
        self._batcher = Batcher(self.captioner, self.settings, self.metrics)
        self._decoders = ThreadPoolExecutor(
            self.settings.decoder_threads, thread_name_prefix="earwitness-decode"
        )
        warm_up = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            self.ready = False
            warm_up.cancel()
            await asyncio.wait([warm_up])
            await self._batcher.close()
            self._decoders.shutdown()

    async def heard(self, upload: Upload, listening: Listening) -> Heard:
        """What is heard in a whole upload. Raises as `audio.load`."""
        progress = Progress()
        async with aclosing(self.segments(upload, listening, progress)) as arriving:
            segments = [segment async for segment in arriving]
        whole = progress.whole and not listening.timed
        return Heard(upload.name, progress.seconds, tuple(segments), whole)

    async def segments(
        self, sound: Upload | tuple[np.ndarray, int], listening: Listening, progress: Progress
    ) -> AsyncGenerator[Segment, None]:
        """The segments of a sound in order, each as soon as no later sound can change it.

        Together they are `merge(cover(...))` of all windows, as the command line has them.
        """
        rate = self.captioner.sample_rate
        blocks = audio.stream(
            sound,
            rate,
            _BLOCK_SECONDS,
            max_seconds=self.settings.max_seconds,
            max_bytes=self.settings.max_bytes,
        )
        windows = _Reader(cut(blocks, rate, listening.windows))
        held: list[Segment] = []
        count = 0
        try:
            while group := await self._decode(windows.take, self.settings.batch_size):
                count += len(group)
                if count > self.settings.max_windows:
                    raise AudioTooLargeError(
                        f"the sound makes more than {self.settings.max_windows} windows, "
                        "the limit in force; a longer hop makes fewer"
                    )
                held += await self._captioned(group, rate, listening)
                end = held[-1].end
                self.metrics.sound.inc(max(0.0, end - progress.seconds))
                progress.seconds, progress.whole = end, group[-1].whole
                final, held = settled(held)
                for segment in final:
                    yield segment
            for segment in merge(cover(held)):
                yield segment
        finally:
            # Not awaited: a request that was cancelled has no time left to wait for its decoder.
            if self._decoders is not None:
                self._decoders.submit(windows.close)

    async def guide_words(self, waveform: np.ndarray, count: int) -> list[tuple[str, float]]:
        """The whole words that the Token Guide pushes most, and by how much; none without one."""
        if not isinstance(self.captioner, Explains):
            return []
        return await self.batcher.run(self.captioner.guide_words, waveform, count)

    async def bridge_view(
        self, waveform: np.ndarray, start: float, end: float
    ) -> BridgeView | None:
        """The sound without and with the model's bridge; None for a model that has none."""
        if self.bridging is None:
            return None
        return await self.batcher.run(self.bridging.view, waveform, start, end)

    async def decoded(self, upload: Upload, max_seconds: float) -> np.ndarray:
        """The whole sound at the model's rate. Raises as `audio.load`."""
        return await self._decode(
            lambda: audio.load(
                upload,
                self.captioner.sample_rate,
                max_seconds=min(max_seconds, self.settings.max_seconds),
                max_bytes=self.settings.max_bytes,
            )
        )

    async def _warm_up(self) -> None:
        rate = self.captioner.sample_rate
        noise = 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
        await self.batcher.captions([noise], self.captioner.decoding)
        self.ready = True

    async def _decode(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._decoders, function, *arguments
        )

    async def _captioned(
        self, group: Sequence[Window], rate: int, listening: Listening
    ) -> list[Segment]:
        """A segment for each window; those below the silence level do not reach the model."""
        decoding = listening.decoding or self.captioner.decoding
        loud = [level_db(window.samples, rate) >= listening.silence_db for window in group]
        heard = [window.samples for window, is_loud in zip(group, loud, strict=True) if is_loud]
        batch = self.batcher.captions
        found = iter(await batch(heard, decoding, listening.reranker) if heard else [])
        return [
            gated(window, rate, next(found) if is_loud else None, listening.min_score)
            for window, is_loud in zip(group, loud, strict=True)
        ]


class _Reader:
    """Windows taken by several threads in turn, closed after the last of them."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows, self._lock = windows, Lock()

    def take(self, count: int) -> list[Window]:
        with self._lock:
            return list(islice(self._windows, count))

    def close(self) -> None:
        with self._lock:
            self._windows.close()  # type: ignore[attr-defined]


def settled(held: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """The merged segments of `held` that later ones cannot change, and what must still be held."""
    covering = cover(held)
    merged = merge(covering)
    first = next(i for i, segment in enumerate(covering) if segment.start >= merged[-1].start)
    return merged[:-1], [replace(held[first], start=covering[first].start), *held[first + 1 :]]


def _rerankers(
    captioner: Captioner, loaded: Reranker | None, candidates: int
) -> dict[str, Reranker]:
    """What a service can rerank with: consensus, the CLAP it was given, and its model's own."""
    known = [Reranker.load(CONSENSUS)]
    own = captioner.audio_text if isinstance(captioner, Explains) else None
    if own is not None:
        known.append(Reranker(captioner.name, CLAP_WEIGHT, own))
    if loaded is not None:
        known.append(loaded)
    return {one.name: replace(one, candidates=candidates) for one in known}
