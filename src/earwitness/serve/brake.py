"""A brake on guessing keys: an address that tries too many wrong ones is blocked for a while."""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from time import monotonic

from starlette.types import Scope

TRIES = 10
"""wrong keys in a row before an address has to wait"""
WAIT_SECONDS = 60.0
_ADDRESSES = 10_000


class Brake:
    """Counts wrong keys and passwords per address (for IPv6, per /64 network).

    After `TRIES` of them within `WAIT_SECONDS` the address waits until none of them is younger than
    that. It remembers the latest 10,000 addresses.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, scope: Scope) -> int:
        """Whole seconds that the client has to wait; 0: none."""
        count, latest = self._wrong.get(_address(scope), (0, 0.0))
        left = latest + WAIT_SECONDS - self._clock()
        return max(1, round(left)) if count >= TRIES and left > 0 else 0

    def wrong(self, scope: Scope) -> None:
        """Notes a wrong key or password."""
        address, now = _address(scope), self._clock()
        count, latest = self._wrong.pop(address, (0, now))
        self._wrong[address] = (count + 1 if now - latest < WAIT_SECONDS else 1, now)
        if len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, scope: Scope) -> None:
        """Forgets the wrong ones of an address that has a right one."""
        self._wrong.pop(_address(scope), None)


def _address(scope: Scope) -> str:
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ip_address(host)
    except ValueError:
        return host[:80]
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ip_network((address, 64), strict=False))
    return str(address)
