"""The running service: uploads in, segments out while the sound is still being decoded."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float
from starlette.datastructures import UploadFile as FormFile

from earwitness import audio
from earwitness.captioning.captioner import Captioner, Explains
from earwitness.captioning.pipeline import (
    CaptionSettings,
    OpenWindow,
    SoundInProgress,
    SoundResult,
)
from earwitness.captioning.rerank import CANDIDATES, CLAP_WEIGHT, CONSENSUS, Reranker
from earwitness.captioning.segments import Segment, Window, cut
from earwitness.errors import AudioTooLargeError, ConfigError
from earwitness.serve.batching import Batcher
from earwitness.serve.brake import Brake
from earwitness.serve.bridging import BridgeView, Bridging
from earwitness.serve.metrics import Metrics
from earwitness.serve.settings import Settings

_BLOCK_SECONDS = 10.0
_NAME_LENGTH = 80


@dataclass
class Upload:
    """A sound from a request: its name, cut to a sane length, and its bytes."""

    name: str
    file: BinaryIO

    def __post_init__(self) -> None:
        self.name = self.name[-_NAME_LENGTH:] or "the upload"

    def read(self, size: int, /) -> bytes:
        """The next bytes of the file."""
        return self.file.read(size)


def uploaded(file: FormFile) -> Upload:
    """The sound in a field of a form. Raises ConfigError for a name that is not Unicode."""
    name = file.filename or ""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the file name {ascii(name)[:80]}; expected Unicode") from None
    return Upload(name, file.file)


class Limits(NamedTuple):
    """How large and long a sound may be, and in how many windows it may be cut."""

    bytes: int
    seconds: float
    windows: int


class Service:
    """A captioner behind a queue: what the HTTP endpoints and the web page call."""

    def __init__(
        self, captioner: Captioner, settings: Settings, reranker: Reranker | None = None
    ) -> None:
        self.captioner, self.settings, self.metrics = captioner, settings, Metrics()
        _ = captioner.min_score  # a wrong card shows at startup, not at a request
        self.rerankers = _rerankers(captioner, reranker, min(CANDIDATES, settings.max_beams))
        """by the name that requests use"""
        self.bridging = Bridging.of(captioner)
        self.ready = self.draining = False
        self.brake = Brake()
        self.in_flight = self.streams = 0
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
    async def running(self) -> AsyncGenerator[None]:
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

    def sound(self, name: str, settings: CaptionSettings) -> SoundInProgress:
        """A sound that is about to be segmented."""
        return SoundInProgress(name, settings, self.captioner.sample_rate, self._count_seconds)

    async def result(self, upload: Upload, settings: CaptionSettings) -> SoundResult:
        """The result of a whole upload. Raises like `audio.load`."""
        sound = self.sound(upload.name, settings)
        async with aclosing(self.segments(upload, sound)) as arriving:
            return sound.result_of([segment async for segment in arriving])

    async def segments(
        self,
        source: Upload | tuple[np.ndarray, int],
        sound: SoundInProgress,
        limits: Limits | None = None,
    ) -> AsyncGenerator[Segment]:
        """The segments of a sound in order, each as soon as no later part of it can change it.

        Together they are the segments that the command line gives. `limits` None: those of a
        request.
        """
        own = self.settings
        limits = limits or Limits(own.max_bytes, own.max_seconds, own.max_windows)
        blocks = audio.stream(
            source,
            sound.rate,
            _BLOCK_SECONDS,
            max_seconds=limits.seconds,
            max_bytes=limits.bytes,
            track=sound.settings.track,
            note=sound.note,
        )
        windows = _Reader(cut(blocks, sound.rate, sound.settings.windows))
        count = 0
        try:
            while group := await self._decode(windows.take, own.batch_size):
                count += len(group)
                if count > limits.windows:
                    raise AudioTooLargeError(
                        f"expected at most {limits.windows} windows, got more; a longer hop "
                        "makes fewer"
                    )
                await self._caption(
                    [opened for window in group if (opened := sound.admit(window))], sound.settings
                )
                for segment in sound.settled():
                    yield segment
            for segment in sound.rest():
                yield segment
        finally:
            # Not awaited: a request that was canceled has no time left to wait for its decoder.
            if self._decoders is not None:
                self._decoders.submit(windows.close)

    async def guide_words(
        self,
        waveform: Float[np.ndarray, " T"],
        count: int,
        against: Sequence[Float[np.ndarray, " _"]],
    ) -> list[tuple[str, float]]:
        """The whole words that the Token Guide boosts more than in the sounds `against`."""
        if not isinstance(self.captioner, Explains) or not against:
            return []
        return await self.batcher.run(self.captioner.guide_words, waveform, count, against)

    async def bridge_view(
        self, waveform: Float[np.ndarray, " T"], start: float, end: float
    ) -> BridgeView | None:
        """The sound without and with the model's bridge; None for a model that has none."""
        if self.bridging is None:
            return None
        return await self.batcher.run(self.bridging.view, waveform, start, end)

    async def decoded(self, upload: Upload, max_seconds: float) -> np.ndarray:
        """The whole sound at the model's rate. Raises like `audio.load`."""
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

    async def _caption(self, opened: Sequence[OpenWindow], settings: CaptionSettings) -> None:
        """Gives each window its segment, through the queue."""
        if not opened:
            return
        decoding = settings.decoding or self.captioner.decoding
        waveforms = [one.window.samples for one in opened]
        found = await self.batcher.captions(waveforms, decoding, settings.reranker)
        for one, n_best in zip(opened, found, strict=True):
            one.close(n_best)

    def _count_seconds(self, seconds: float) -> None:
        self.metrics.sound.inc(seconds)


class _Reader:
    """Windows that several threads take in turn."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows, self._lock = windows, Lock()

    def take(self, count: int) -> list[Window]:
        with self._lock:
            return list(islice(self._windows, count))

    def close(self) -> None:
        with self._lock:
            self._windows.close()  # type: ignore[attr-defined]


def _rerankers(
    captioner: Captioner, loaded: Reranker | None, candidates: int
) -> dict[str, Reranker]:
    """What a service can rerank by: consensus, its model's own CLAP, and the one it was given."""
    known = [Reranker.load(CONSENSUS)]
    own = captioner.audio_text if isinstance(captioner, Explains) else None
    if own is not None:
        known.append(Reranker(captioner.name, CLAP_WEIGHT, own))
    if loaded is not None:
        known.append(loaded)
    return {one.name: replace(one, candidates=candidates) for one in known}
