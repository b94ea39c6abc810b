"""Slows down whoever fails to sign in again and again. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

WINDOW = timedelta(minutes=1)
MOST_FAILURES = 10
"""So many failures of one address are taken within the window."""

_MOST_ADDRESSES = 10_000


class Throttle:
    """The failures of the last minute, by address; of IPv6, by network of 64 bits, which one person has."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[datetime]] = OrderedDict()

    def refuses(self, address: str, now: datetime) -> bool:
        """Whether this address failed too often to be heard now."""
        failures = self._failures.get(_network(address))
        return failures is not None and len(failures) >= MOST_FAILURES and now - failures[0] < WINDOW

    def failed(self, address: str, now: datetime) -> None:
        """Records a failure."""
        key = _network(address)
        self._failures.setdefault(key, deque(maxlen=MOST_FAILURES)).append(now)
        self._failures.move_to_end(key)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
