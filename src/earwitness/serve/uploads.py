"""The uploads of the web page: the limits of the service, and cleanup of what broke off."""

import contextlib
import time
from pathlib import Path

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earwitness.serve.limits import Gate, problem, refuse
from earwitness.serve.service import Service

UPLOAD = "/demo/gradio_api/upload"
_GRACE_SECONDS = 1.0
"""clocks of file systems are coarse"""


class UploadGate(Gate):
    """ASGI middleware before the page's uploads: size, time and places as for the endpoints."""

    def __init__(self, app: ASGIApp, service: Service, folder: Path) -> None:
        super().__init__(Tidied(app, folder), service)
        self._inside = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or get_route_path(scope) != UPLOAD:
            await self._inside(scope, receive, send)
            return
        refusal = self._no_room(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        await self._within_limits(scope, receive, send)


class Tidied:
    """ASGI middleware that removes what is left of uploads that were refused or broke off.

    Gradio writes an upload into `folder` under a temporary name and moves it once it is complete.
    A file that keeps its temporary name and is older than all current uploads belongs to none.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app, self._folder, self._starts = app, folder, list[float]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: Response | None = None

        async def receiving() -> Message:
            nonlocal refusal
            try:
                return await receive()
            except HTTPException as error:
                refusal = problem(error.status_code, str(error.detail))
                raise

        async def sending(message: Message) -> None:
            # Instead of Gradio's answer to a refusal, ours follows once all is tidy.
            if refusal is None:
                await send(message)

        start = time.time()
        self._starts.append(start)
        try:
            with contextlib.suppress(ClientDisconnect):
                await self._app(scope, receiving, sending)
        finally:
            self._starts.remove(start)
            self._tidy()
        if refusal is not None:
            await refusal(scope, receive, send)

    def _tidy(self) -> None:
        oldest = min(self._starts, default=float("inf")) - _GRACE_SECONDS
        for path in self._folder.glob("tmp*"):
            if path.is_file() and path.stat().st_ctime < oldest:
                path.unlink(missing_ok=True)
