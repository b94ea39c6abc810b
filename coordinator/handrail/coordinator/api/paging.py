"""Pages of lists: opaque tokens that are bound to their listing, and page sizes that fit into one response."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from handrail.coordinator.lists.flows import Listing
from handrail.coordinator.lists.quarantined import BEGINNING, Place
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.subjects import NAME
from handrail.v1.error_reason_pb2 import ErrorReason

MAX_PAGE_SIZE = 500
"""Larger page sizes are reduced to this one (https://google.aip.dev/158)."""

MAX_PAGE_BYTES = 3 << 20
"""The most bytes in a page, unless its first item alone is larger: gRPC clients accept 4 MiB by default."""

_DIGEST = 8
_NUMBER = re.compile(r"[0-9]{1,20}")
_PLACE = re.compile(rf"({NAME.pattern}|)/({_NUMBER.pattern})")

Item = TypeVar("Item")
View = TypeVar("View", bound=Message)


def page_size(asked: int, default: int) -> int:
    """Returns how many items a page has."""
    return min(asked, MAX_PAGE_SIZE) if asked else default


def page_token(cursor: int | str, *listing: object) -> str:
    """Returns the token of the page after `cursor`, or an empty string at the end; `listing` identifies the listing."""
    return urlsafe_b64encode(_digest(listing) + str(cursor).encode()).decode().rstrip("=") if cursor else ""


def cursor_of(token: str, *listing: object) -> str:
    """Returns the cursor in a token, empty for the first page.

    Raises BAD_PAGE_TOKEN if the token is invalid or belongs to another listing.
    """
    if not token:
        return ""
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        cursor = raw[_DIGEST:].decode()
    except ValueError:
        raise _bad("the page token was not issued by this server") from None
    if raw[:_DIGEST] != _digest(listing):
        raise _bad("the page token belongs to another listing: keep the filters of the first page")
    return cursor


def sequence_of(token: str, *listing: object) -> int:
    """Returns the cursor as a stream sequence; 0 for the first page. Raises BAD_PAGE_TOKEN."""
    cursor = cursor_of(token, *listing)
    if cursor and not (_NUMBER.fullmatch(cursor) and int(cursor) < 1 << 64):
        raise _bad("the page token was not issued by this server")
    return int(cursor or 0)


def place_in(token: str, *listing: object) -> Place:
    """Returns the cursor as a place in the quarantines; the beginning for the first page. Raises BAD_PAGE_TOKEN."""
    cursor = cursor_of(token, *listing)
    if not cursor:
        return BEGINNING
    parts = _PLACE.fullmatch(cursor)
    if parts is None or not int(parts[2]) < 1 << 64:
        raise _bad("the page token was not issued by this server")
    return Place(parts[1], int(parts[2]))


def fitting(items: Iterable[View], size: int) -> list[View]:
    """Returns the first `size` items, or fewer if they don't fit into one response."""
    page: list[View] = []
    space = MAX_PAGE_BYTES
    for item in items:
        space -= item.ByteSize()
        if len(page) == size or (space < 0 and page):
            break
        page.append(item)
    return page


def page_of(listing: Listing[Item], view: Callable[[Item], View]) -> tuple[list[View], int]:
    """Returns as much of a page as fits, as API views, and the cursor after it (0 at the end)."""
    rows = listing.rows
    page = fitting((view(row.item) for row in rows), len(rows))
    return page, listing.next_cursor if len(page) == len(rows) else rows[len(page) - 1].cursor


def _digest(listing: Sequence[object]) -> bytes:
    return hashlib.sha256(repr(tuple(listing)).encode()).digest()[:_DIGEST]


def _bad(text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN, f"{text}; leave it out to start over")
