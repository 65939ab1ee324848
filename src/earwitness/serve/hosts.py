"""The names under which a service answers: a page of another site cannot pass for it; HEAD."""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from earwitness.serve.limits import problem
from earwitness.serve.settings import Settings


class HostCheck:
    """ASGI middleware: 400 for a request whose `Host` is not one of the service's names.

    A site that lets its own name point at this machine (DNS rebinding) sends its own name. Requests
    without the header, which browsers always send, pass.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, names = Headers(scope=scope), ", ".join(self._settings.allowed_hosts)
        given, origin = headers.get("host"), headers.get("origin")
        if given and not is_allowed(given, self._settings):
            said = f"the host {given[:80]!r} is not served here; expected {names} (--allowed-host)"
            await problem(400, said)(scope, receive, send)
        elif scope["type"] == "websocket" and origin and not self._is_own(origin):
            # Browsers let any page open a WebSocket: only this header tells whose it is.
            said = f"the origin {origin[:80]!r} may not open a stream; expected {names}"
            await problem(403, said)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_own(self, origin: str) -> bool:
        """Whether a page of this origin is one of the service's own, or of a site that may ask."""
        if {origin, "*"} & set(self._settings.cors_origins):
            return True
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and is_allowed(host, self._settings)


def is_allowed(given: str, settings: Settings) -> bool:
    """Whether a `Host` header, with or without a port, is one of the service's names."""
    try:
        parts = urlsplit(f"//{given}")
        name, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return False
    if parts.netloc != given or "@" in given:
        return False
    if settings.any_address and _is_address(name):
        return True
    return is_named(name, settings.allowed_hosts)


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether a host is one of `patterns`: a name, `*.example.org` for all below it, or `*`."""
    for pattern in (one.lower().strip("[]") for one in patterns):
        below = pattern.startswith("*.") and name.endswith(pattern[1:])
        if pattern in ("*", name) or below:
            return True
    return False


class Outside:
    """ASGI middleware: the path under which a proxy serves this, and HEAD as GET.

    The proxy may take that path off or leave it. The server leaves the body of HEAD out.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if scope["type"] in ("http", "websocket") and self._root_path:
            path = scope["path"]
            if not f"{path}/".startswith(f"{self._root_path}/"):
                # Mounted applications find their own part in a complete path.
                path = f"{self._root_path}{path}"
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
