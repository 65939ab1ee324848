"""The uploads of the web page: the limits of the service, and nothing left of what broke off."""

import contextlib
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from earwitness.serve.limits import Gate, refuse
from earwitness.serve.service import Service

UPLOAD = "/demo/gradio_api/upload"


class UploadGate(Gate):
    """ASGI middleware before the page's uploads: size, time and places as for the endpoints.

    Gradio writes an upload into `folder` under a passing name and moves it below once it is whole;
    whatever keeps its passing name when no upload is under way is removed.
    """

    def __init__(self, app: ASGIApp, service: Service, folder: Path) -> None:
        super().__init__(app, service)
        self._folder, self._under_way = folder, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != UPLOAD:
            await self._app(scope, receive, send)
            return
        refusal = self._no_room(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._within_limits(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.glob("tmp*"):
                if path.is_file():
                    path.unlink(missing_ok=True)
