"""Page tokens: where a list goes on, bound to the list. Pure.

A token names the last row of a page. It also carries the time of the first page, to which a filter such as `age > 2h`
refers on all pages, and the total.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from handrail.mesh.errors import HandrailError
from handrail.mesh.instants import from_micros, micros
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.listing_pb2 import Total

Key = int | str | datetime | None
"""A value by which rows are ordered."""

_DIGEST = 8
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_HEAD = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})\.([01])")
_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,18}")


class Continued(NamedTuple):
    """Where a list goes on: `keys` are those of the last row."""

    now: datetime
    total: Total
    keys: tuple[Key, ...]


class Listing:
    """One list: what it lists, from which index, by which filter and in which order. Its keys have these `kinds`."""

    def __init__(self, *identity: object, kinds: tuple[type[Key], ...]) -> None:
        self._digest = _digest(repr(identity).encode())
        self._kinds = kinds

    def tokens(self, now: datetime, total: Total) -> Callable[[tuple[Key, ...]], str]:
        """Returns a function that gives the token after a row with these keys."""
        head = f"{micros(now)}.{total.items}.{int(total.at_least)}"

        def token(keys: tuple[Key, ...]) -> str:
            text = ".".join((head, *map(_written, keys))).encode()
            return urlsafe_b64encode(self._digest + _digest(self._digest + text) + text).decode().rstrip("=")

        return token

    def read(self, token: str) -> Continued | None:
        """Returns where the list goes on; None for its beginning. Raises BAD_PAGE_TOKEN."""
        if not token:
            return None
        try:
            raw = b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise _not_issued() from None
        identity, check, text = raw[:_DIGEST], raw[_DIGEST : 2 * _DIGEST], raw[2 * _DIGEST :]
        if check != _digest(identity + text):
            raise _not_issued()
        if identity != self._digest:
            raise _bad("the page token belongs to another list: keep the filter and the order of the first page")
        return self._parsed(text.decode("ascii", "replace"))

    def _parsed(self, text: str) -> Continued:
        parts = text.split(".")
        head = _HEAD.fullmatch(".".join(parts[:3]))
        if head is None or len(parts) != 3 + len(self._kinds):
            raise _not_issued()
        keys = tuple(_read(kind, part) for kind, part in zip(self._kinds, parts[3:], strict=True))
        return Continued(_time(head[1]), Total(items=int(head[2]), at_least=head[3] == "1"), keys)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST]


def _written(key: Key) -> str:
    if key is None:
        return "-"
    return str(micros(key) if isinstance(key, datetime) else key)


def _read(kind: type[Key], text: str) -> Key:
    if kind is datetime:
        return None if text == "-" else _time(text)
    if (_ID if kind is str else _NUMBER).fullmatch(text) is None:
        raise _not_issued()
    return text if kind is str else int(text)


def _time(text: str) -> datetime:
    if _NUMBER.fullmatch(text) is None or int(text) > micros(_LATEST):
        raise _not_issued()
    return from_micros(int(text))


def _not_issued() -> HandrailError:
    return _bad("the page token was not issued by this service")


def _bad(text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN, f"{text}; leave it out to start over")
