"""Limits on connections: a maximum number, and none that waits forever for its request."""

import asyncio
import errno
import logging
from importlib.util import find_spec
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from earwitness.serve.settings import Settings

STREAM_PATH = "/v1/audio/stream"
STREAM_MESSAGE_BYTES = 1 << 20
"""largest message of a WebSocket"""

_HEAD_SECONDS = 30.0
_SPARE_FILES = 64
_FILES_PER_CONNECTION = 2
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


def options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.Config` needs for connections within the limits of `settings`."""
    limits = {
        "longest": min(_HEAD_SECONDS, settings.timeout_seconds),
        "most": most_connections(settings),
    }
    return {
        "http": type("Limited", (Limited,), limits),
        # Reads no further while a message waits; what it holds of a stream does not grow.
        "ws": "websockets-sansio" if find_spec("websockets") else "none",
        "ws_max_size": STREAM_MESSAGE_BYTES,
        "ws_ping_timeout": settings.timeout_seconds,
        "ws_per_message_deflate": False,
    }


def most_connections(settings: Settings) -> int:
    """The limit of `settings`, or less if the process may not open that many files."""
    try:
        import resource
    except ImportError:
        return settings.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.max_connections
    return min(settings.max_connections, max(8, (soft - _SPARE_FILES) // _FILES_PER_CONNECTION))


class Limited(H11Protocol):
    """uvicorn's HTTP protocol with a time limit for the head of a request, and a cap.

    A connection over the cap replaces the one that has waited longest for its request; if all are
    busy it gets 503.
    """

    longest: float
    """seconds"""
    most: int
    deadline: asyncio.TimerHandle | None = None
    upgraded = False
    """whether the connection has become a WebSocket, which another protocol reads"""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, or refuses it."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            transport.write(_BUSY)
            self.give_up()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Reads on."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._unwatch()
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Closes the connection; it no longer counts."""
        self._unwatch()
        self.connections.discard(self)
        self.transport.close()

    @property
    def awaits_request(self) -> bool:
        """Whether no request is being answered."""
        # uvicorn sets None at first.
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _watch(self) -> None:
        if self.upgraded or not self.awaits_request:
            self._unwatch()
        elif self.deadline is None and not self.transport.is_closing():
            self.deadline = self.loop.call_later(self.longest, self.give_up)

    def _unwatch(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _make_room(self) -> bool:
        others = [one for one in self.connections if one is not self]
        idle = [one for one in others if isinstance(one, Limited) and one.awaits_request]
        if not idle:
            return False
        # Those between two requests have no deadline: uvicorn closes them after five seconds.
        min(idle, key=lambda one: one.deadline.when() if one.deadline else 0.0).give_up()
        return True

    def _should_upgrade(self) -> bool:
        """Only the one path that is a WebSocket."""
        wanted = self.scope["path"].endswith(STREAM_PATH)
        self.upgraded = wanted and self._get_upgrade() == b"websocket"
        return self.upgraded


class Server(uvicorn.Server):
    """uvicorn's server that logs once, not once a second, that it has run out of files."""

    async def startup(self, sockets: Any = None) -> None:
        """Starts to listen."""
        asyncio.get_running_loop().set_exception_handler(Complaints())
        await super().startup(sockets)


class Complaints:
    """An exception handler for an event loop: a lack of system resources is logged once."""

    def __init__(self) -> None:
        self._said: set[int] = set()

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        number = error.errno if isinstance(error, OSError) else None
        if number not in _EXHAUSTED:
            loop.default_exception_handler(context)
        elif number not in self._said:
            self._said.add(number)
            logging.getLogger("uvicorn.error").error(
                "new connections must wait: %s (logged once)", context["exception"]
            )
