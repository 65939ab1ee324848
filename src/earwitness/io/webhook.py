"""JSON sent to an address that the user named, tried again if there is no answer."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from earwitness.errors import ConfigError, one_line

RETRIES = 3
_TIMEOUT_S = 10.0
_AGAIN = (408, 425, 429)
"""client errors that another try may mend"""


def check_address(url: str, option: str) -> None:
    """Raises ConfigError for what is not an http or https address."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{option} {url!r}: expected an address such as https://host/path")


def post(
    url: str,
    record: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> str | None:
    """Sends the record as JSON; what went wrong after the last try, None if it was taken.

    Any answer 2xx counts as taken. Without an answer, and for 5xx, 408, 425 and 429, it is tried
    three more times, 1, 2 and 4 seconds later.
    """
    body = json.dumps(record, ensure_ascii=False).encode()
    all_headers = {"Content-Type": "application/json", **(headers or {})}
    request = Request(url, body, all_headers, method="POST")
    problem = None
    for attempt in range(RETRIES + 1):
        if attempt:
            wait(2.0 ** (attempt - 1))
        try:
            with urlopen(request, timeout=_TIMEOUT_S):
                return None
        except HTTPError as error:
            error.close()
            problem = f"answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in _AGAIN:
                return problem
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            problem = f"did not answer ({one_line(getattr(reason, 'strerror', None) or reason)})"
    return f"{problem}, tried {RETRIES + 1} times"
