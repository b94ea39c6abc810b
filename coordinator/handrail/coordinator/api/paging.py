"""Pages of lists: opaque tokens that are bound to the listing they came from, and sizes that fit into one answer."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from handrail.coordinator.lists.flows import Listing
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

MAX_PAGE_SIZE = 500
"""Larger sizes are taken as this one (https://google.aip.dev/158)."""

MAX_PAGE_BYTES = 3 << 20
"""What a page holds at most, unless its first item alone is larger: gRPC clients take 4 MiB by default."""

_DIGEST = 8
_NUMBER = re.compile(r"[0-9]{1,20}")

Item = TypeVar("Item")
View = TypeVar("View", bound=Message)


def page_size(asked: int, default: int) -> int:
    """How many items to give."""
    return min(asked, MAX_PAGE_SIZE) if asked else default


def page_token(cursor: int | str, *listing: object) -> str:
    """The token for the page behind `cursor`, empty where there is none; `listing` tells one listing from another."""
    return urlsafe_b64encode(_digest(listing) + str(cursor).encode()).decode().rstrip("=") if cursor else ""


def cursor_of(token: str, *listing: object) -> str:
    """The cursor in a token, empty for the first page; BAD_PAGE_TOKEN where it is none, or of another listing."""
    if not token:
        return ""
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        cursor = raw[_DIGEST:].decode()
    except ValueError:
        raise _bad("the page token is none that this server gave") from None
    if raw[:_DIGEST] != _digest(listing):
        raise _bad("the page token belongs to another listing: filters must stay as they were on the first page")
    return cursor


def sequence_of(token: str, *listing: object) -> int:
    """The same for cursors that are sequences of a stream; 0 for the first page."""
    cursor = cursor_of(token, *listing)
    if cursor and not (_NUMBER.fullmatch(cursor) and int(cursor) < 1 << 64):
        raise _bad("the page token is none that this server gave")
    return int(cursor or 0)


def fitting(items: Iterable[View], size: int) -> list[View]:
    """The first `size` items, fewer where they would not fit into one answer."""
    page: list[View] = []
    space = MAX_PAGE_BYTES
    for item in items:
        space -= item.ByteSize()
        if len(page) == size or (space < 0 and page):
            break
        page.append(item)
    return page


def page_of(listing: Listing[Item], view: Callable[[Item], View]) -> tuple[list[View], int]:
    """A page of a scan as the API shows it, as much of it as fits, and the cursor behind it; 0 at the end."""
    rows = listing.rows
    page = fitting((view(row.item) for row in rows), len(rows))
    return page, listing.next_cursor if len(page) == len(rows) else rows[len(page) - 1].cursor


def _digest(listing: Sequence[object]) -> bytes:
    return hashlib.sha256(repr(tuple(listing)).encode()).digest()[:_DIGEST]


def _bad(text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN, f"{text}; leave it out to begin anew")
