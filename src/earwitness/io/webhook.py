"""Sends JSON to an address given by the user, with retries if there is no answer."""

import json
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from earwitness.errors import ConfigError, one_line

RETRIES = 3
_TIMEOUT_S = 10.0
_AGAIN = (408, 425, 429)
"""client errors that a retry may fix"""


def check_address(url: str, option: str) -> None:
    """Raises ConfigError for anything but an http or https address."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{option} {url!r}: expected an address such as https://host/path")


class Answer(NamedTuple):
    """The result of one try: the status, if any, and what went wrong ("" for 2xx)."""

    status: int | None
    problem: str = ""

    @property
    def taken(self) -> bool:
        """Whether the status was one of 200 to 299."""
        return not self.problem

    @property
    def passing(self) -> bool:
        """Whether a retry may succeed."""
        return self.status is None or self.status >= 500 or self.status in _AGAIN


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """The given address may not redirect the record to another one."""
        return


def send(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Tries once to POST JSON, for at most 10 s; redirects are not followed."""
    all_headers = {"Content-Type": "application/json", **headers}
    try:
        request = Request(url, body, all_headers, method="POST")
        with build_opener(_Stay).open(request, timeout=_TIMEOUT_S) as answer:
            return Answer(answer.status)
    except HTTPError as error:
        error.close()
        return Answer(error.code, f"answered {error.code} {error.reason}")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        said = one_line(getattr(reason, "strerror", None) or reason) or type(error).__name__
        return Answer(None, f"did not answer ({said})"[:200])


def post(
    url: str,
    record: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> str | None:
    """Sends the record as JSON; returns the last error, or None if it was accepted.

    Any 2xx answer counts as accepted. Without an answer, and for 5xx, 408, 425 and 429, it is
    retried three times, after 1, 2 and 4 seconds.
    """
    body = json.dumps(record, ensure_ascii=False).encode()
    answer = send(url, body, headers or {})
    for attempt in range(RETRIES):
        if answer.taken:
            return None
        if not answer.passing:
            return answer.problem
        wait(2.0**attempt)
        answer = send(url, body, headers or {})
    return None if answer.taken else f"{answer.problem}, tried {RETRIES + 1} times"
