"""The gate before the endpoints: keys, readiness, free places, size and time of the upload."""

import hmac
import logging
from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import perf_counter
from typing import Any

import anyio
from python_multipart.multipart import parse_options_header
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earwitness.serve.service import Service

LOG = logging.getLogger("earwitness.serve")
JOBS = "/v1/jobs"
FORM_BYTES = 65_536
"""what a form may hold besides its files"""

_ENDPOINTS = (
    *(f"/v1/audio/{name}" for name in ("captions", "transcriptions", "translations", "stream")),
    *("/v1/models", "/v1/models/{name}", JOBS, f"{JOBS}/{{job}}", f"{JOBS}/{{job}}/result"),
)
_DRAIN_SECONDS = 5.0
_KINDS = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's format; all endpoints answer in it."""
    kind = _KINDS.get(status, "invalid_request_error")
    sentence = sentence.encode("utf-8", "replace").decode()
    error = {"message": sentence, "type": kind, "param": None, "code": None}
    retry = {"Retry-After": "1"} if status in (429, 503) else {}
    return JSONResponse({"error": error}, status, {**retry, **(headers or {})})


def slow_down(seconds: int) -> JSONResponse:
    """The answer to an address that has tried too many wrong keys."""
    return problem(
        429, f"too many wrong keys; try again in {seconds} s", {"Retry-After": str(seconds)}
    )


def knows_key(keys: tuple[str, ...], offered: str) -> bool:
    """Whether `offered` is one of the keys; the time it takes reveals nothing about them."""
    digest = sha256(offered.encode()).digest()
    matches = [hmac.compare_digest(sha256(key.encode()).digest(), digest) for key in keys]
    return any(matches)


class Gate:
    """ASGI middleware before `/v1`: refuses before reading, counts while reading."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service, self._brake = app, service, service.brake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http" or not get_route_path(scope).startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admit(scope, receive, watched)
        finally:
            metrics, path = self._service.metrics, _endpoint(scope)
            metrics.requests.labels(path, str(status)).inc()
            seconds = perf_counter() - started
            metrics.latency.labels(path).observe(seconds)
            told = {"method": scope["method"], "path": path, "status": status}
            LOG.info("request", extra={"fields": {**told, "seconds": round(seconds, 4)}})

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket: a place among the requests, and one among the streams."""
        service = self._service
        refusal = self._refusal(with_key(scope) | {"method": "POST"})
        if refusal is None and service.streams >= service.settings.max_streams:
            refusal = problem(429, f"{service.streams} streams are open, the limit")
        status = 101 if refusal is None else refusal.status_code
        self._service.metrics.requests.labels(_endpoint(scope), str(status)).inc()
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        service.streams += 1
        service.in_flight += 1
        service.metrics.in_flight.set(service.in_flight)
        try:
            await self._app(scope, receive, send)
        finally:
            service.streams -= 1
            service.in_flight -= 1
            service.metrics.in_flight.set(service.in_flight)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        await self._within_limits(scope, receive, send)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        service.in_flight += 1
        service.metrics.in_flight.set(service.in_flight)
        body = _Body(receive, service.settings.timeout_seconds, self._most_bytes(scope))
        try:
            await self._app(scope, body.receive, body.draining(send))
        finally:
            service.in_flight -= 1
            service.metrics.in_flight.set(service.in_flight)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        settings, headers = self._service.settings, Headers(scope=scope)
        if settings.api_keys:
            if seconds := self._brake.wait(scope):
                return slow_down(seconds)
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not knows_key(settings.api_keys, key.strip()):
                if key:
                    self._brake.wrong(scope)
                return problem(
                    401,
                    "this service needs a valid API key, sent as 'Authorization: Bearer <key>'",
                    {"WWW-Authenticate": "Bearer"},
                )
            self._brake.right(scope)
        return self._no_room(scope) if scope["method"] == "POST" else None

    def _no_room(self, scope: Scope) -> JSONResponse | None:
        service, settings, headers = self._service, self._service.settings, Headers(scope=scope)
        if service.draining or not service.ready:
            state = "shutting down" if service.draining else "still loading"
            return problem(503, f"the service is {state}; try again in a moment")
        charset = _charset(headers.get("content-type", ""))
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            return problem(422, f"the charset {charset[:40]!r} of the form; expected utf-8")
        length, most = headers.get("content-length", "0"), self._most_bytes(scope)
        if not length.isdigit() or int(length) > most + FORM_BYTES:
            return problem(413, _too_large(most))
        if service.in_flight >= settings.max_requests:
            return problem(
                429,
                f"{service.in_flight} requests are waiting, the limit; try again in a moment",
            )
        return None

    def _most_bytes(self, scope: Scope) -> int:
        settings = self._service.settings
        return settings.job_max_bytes if get_route_path(scope) == JOBS else settings.max_bytes


class _Body:
    """The body of a request, counted and timed while it arrives."""

    def __init__(self, receive: Receive, seconds: float, most: int) -> None:
        self._receive, self._seconds, self._most = receive, seconds, most
        self._size = 0
        self._complete = False
        self._deadline = anyio.current_time() + seconds

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        with anyio.move_on_after(self._deadline - anyio.current_time()):
            message = await self._receive()
            self._complete = not message.get("more_body", False)
            self._size += len(message.get("body", b""))
            if self._size > self._most + FORM_BYTES:
                raise HTTPException(413, _too_large(self._most))
            return message
        raise HTTPException(
            408,
            f"the upload took longer than the limit of {self._seconds:g} s",
        )

    def draining(self, send: Send) -> Callable[[Message], Awaitable[None]]:
        """`send` that drains an unread upload: a reset would take the answer with it."""

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not self._complete:
                await send({**message, "more_body": True})
                await _drain(self._receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return sending


async def refuse(response: JSONResponse, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once; what the client still sends is discarded for a few seconds."""
    status, headers = response.status_code, response.raw_headers
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    with anyio.move_on_after(_DRAIN_SECONDS):
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass


def with_key(scope: Scope) -> dict[str, Any]:
    """The scope of a WebSocket, whose key a browser can only send as a subprotocol `key.KEY`."""
    keys = [one[4:] for one in scope.get("subprotocols", ()) if one.startswith("key.")]
    header = [(b"authorization", f"Bearer {keys[0]}".encode())] if keys else []
    return {**scope, "headers": [*scope["headers"], *header]}


def _charset(content_type: str) -> str:
    """The charset that a form names: others than UTF-8 can make names that no answer can hold."""
    _, options = parse_options_header(content_type)
    return options.get(b"charset", b"").decode("latin-1").strip().lower()


def _too_large(limit: int) -> str:
    return f"the upload is larger than the limit of {limit} bytes"


def _endpoint(scope: Scope) -> str:
    """The path for the metrics: a fixed set, whatever clients ask for."""
    route: Any = scope.get("route")
    path = getattr(route, "path", "") or get_route_path(scope)
    return path if path in _ENDPOINTS else "other"
