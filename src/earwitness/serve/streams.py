"""`/v1/audio/stream`: a WebSocket on which sound goes in and captions and events come out."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any, Literal

import anyio
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import settings_for
from earwitness.config import validate
from earwitness.errors import AudioTooLargeError, ConfigError, EarwitnessError
from earwitness.live.captioner import LiveCaptioner, LiveSettings
from earwitness.live.filters import Filter, class_head, wanted_sounds
from earwitness.live.records import Report
from earwitness.live.sources import Pcm, samples
from earwitness.serve.pushed import HELD, Inbox, Pushed, StreamFormat
from earwitness.serve.service import Service

PROTOCOL = "earwitness"
"""the subprotocol that browsers name, beside one that holds the key"""

_SEND_SECONDS = 10.0
_ENDS = ("end", '{"type":"end"}')
_WRONG, _TOO_LARGE = 1008, 1009


class StreamOptions(BaseModel):
    """The options in the query of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: StreamFormat = "s16le"
    rate: Annotated[int, Field(ge=8000, le=768_000)] = 16_000
    channels: Annotated[int, Field(ge=1, le=8)] = 1
    on: Annotated[str, Field(max_length=2000)] | None = None
    above: Annotated[float, Field(ge=0, le=1)] = 0.5
    cool_down: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    every: Annotated[float, Field(ge=2, le=30)] = 10.0
    only: Literal["captions", "events"] | None = None

    @classmethod
    def of(cls, query: dict[str, str]) -> "StreamOptions":
        """The options of a query. Raises ConfigError: an unknown one, or a value out of range."""
        try:
            return cls.model_validate(query)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                known = ", ".join(sorted(cls.model_fields))
                raise ConfigError(f"unknown option {name!r}; expected {known}") from None
            raise ConfigError(f"{name}={query.get(name, '')}: {first['msg'].lower()}") from None


async def stream(socket: WebSocket) -> None:
    """Reports as JSON, one per message, of the sound that the client sends; then `done`.

    An error is a message, too, and ends the stream.
    """
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    service: Service = socket.app.state.service
    with suppress(WebSocketDisconnect):
        try:
            options = StreamOptions.of(dict(socket.query_params))
            await _Stream(socket, service, options).run()
            await socket.close(1000)
        except EarwitnessError as error:
            await _send(socket, {"type": "error", "error": {"message": str(error)}})
            await socket.close(_TOO_LARGE if isinstance(error, AudioTooLargeError) else _WRONG)


async def _send(socket: WebSocket, record: dict[str, Any]) -> None:
    """Sends a record. Raises WebSocketDisconnect: the client does not read, or has left."""
    with anyio.move_on_after(_SEND_SECONDS):
        await socket.send_json(record)
        return
    raise WebSocketDisconnect


class _Stream:
    """One client's stream: a task receives, a thread decodes, the model's thread captions."""

    def __init__(self, socket: WebSocket, service: Service, options: StreamOptions) -> None:
        self._socket, self._service, self._limits = socket, service, service.settings
        captioner = service.captioner
        classes = class_head(captioner)
        self._filter = Filter(wanted_sounds(options.on, classes), options.cool_down)
        silence = validate(CaptionOptions, {"silence": self._limits.silence_db}, "the settings")
        settings = LiveSettings(
            settings_for(silence, captioner),
            options.every,
            options.above,
            captions=options.only != "events",
            events=options.only != "captions",
        )
        self._live = LiveCaptioner(captioner, classes, settings)
        self._inbox, self._room = Inbox(), asyncio.Semaphore(HELD)
        raw = "s16le" if options.format == "opus" else options.format
        pcm = Pcm(raw, options.rate, options.channels)
        self._source = Pushed(self._inbox, options.format, pcm)

    async def run(self) -> None:
        """Raises EarwitnessError for what the client did wrong, WebSocketDisconnect if it left."""
        ready = {"type": "ready", "model": self._service.captioner.name}
        await _send(self._socket, ready)
        receiving = asyncio.create_task(self._receive())
        captioning = asyncio.create_task(self._caption())
        longest = self._limits.max_seconds + self._limits.timeout_seconds
        try:
            async with asyncio.timeout(longest):
                await asyncio.wait({receiving, captioning}, return_when=asyncio.FIRST_EXCEPTION)
        except TimeoutError:
            raise AudioTooLargeError(f"the stream took longer than {longest:g} s") from None
        finally:
            self._inbox.end()
            receiving.cancel()
            captioning.cancel()
            await asyncio.wait({receiving, captioning})
        for task in (receiving, captioning):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        await _send(self._socket, {"type": "done", "seconds": round(self._live.seconds, 3)})

    async def _receive(self) -> None:
        """Messages into the inbox, as fast as they are decoded."""
        loop, size = asyncio.get_running_loop(), 0

        def taken() -> None:
            loop.call_soon_threadsafe(self._room.release)

        while True:
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    message = await self._socket.receive()
            except TimeoutError:
                raise ConfigError(
                    f"the stream sent nothing for {self._limits.timeout_seconds:g} s"
                ) from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            data, text = message.get("bytes"), message.get("text")
            if text is not None:
                if "".join(text.split()) not in _ENDS:
                    raise ConfigError(
                        f"the text message {text[:40]!r}; expected binary messages with sound, or "
                        "the text 'end'"
                    )
                self._inbox.end()
                return
            size += len(data or b"")
            if size > self._limits.max_bytes:
                raise AudioTooLargeError(f"expected at most {self._limits.max_bytes} bytes")
            if data:
                await self._room.acquire()
                self._inbox.put(data, taken)

    async def _caption(self) -> None:
        """Runs what arrives through the model, to the end."""
        pieces = samples(self._source, self._live.rate)
        loop, run = asyncio.get_running_loop(), self._service.batcher.run
        decoder = ThreadPoolExecutor(1, thread_name_prefix="earwitness-stream")
        try:
            while True:
                piece = await loop.run_in_executor(decoder, next, pieces, None)
                if piece is None:
                    break
                if self._live.seconds + len(piece) / self._live.rate > self._limits.max_seconds:
                    raise AudioTooLargeError(
                        f"the stream is longer than {self._limits.max_seconds:g} s, the limit"
                    )
                # At most two seconds at a time: other requests wait for the same thread.
                for start in range(0, len(piece), 2 * self._live.rate):
                    await self._report(await run(self._live.feed, _part(piece, start, self._live)))
            await self._report(await run(self._live.finish))
        finally:
            self._inbox.end()
            decoder.shutdown(wait=False)

    async def _report(self, reports: Sequence[Report]) -> None:
        for report in reports:
            if self._filter.passes(report):
                await _send(self._socket, report.as_dict())


def _part(piece: np.ndarray, start: int, live: LiveCaptioner) -> np.ndarray:
    return piece[start : start + 2 * live.rate]
