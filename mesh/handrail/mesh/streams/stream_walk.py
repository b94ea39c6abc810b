"""Walks a stream by subject filter, in either direction, page by page; and lists its subjects.

The broker scans the messages one by one, from the oldest: use it for lists, never for one flow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.bus.api import API_TIMEOUT

_ROWS = 256
_FIRST_WINDOW = 1024
_LAST_WINDOW = 1 << 20


async def oldest_first(bus: Bus, stream: str, subject_filter: str, *, after: int = 0) -> AsyncIterator[RawMessage]:
    """The matching messages after sequence `after`, oldest first."""
    while True:
        page = await bus.read_forward(stream, subject_filter, from_sequence=after + 1, limit=_ROWS)
        for message in page.messages:
            yield message
            after = message.sequence
        if not page.pending:
            return


async def newest_first(bus: Bus, stream: str, filters: Sequence[str], *, below: int = 0) -> AsyncIterator[RawMessage]:
    """The messages that match one of the filters, newest first; before sequence `below`, unless that is 0.

    The broker reads forward only, so this reads window by window, back from the end. Windows grow if matches are rare.
    """
    newest = [message for each in filters if (message := await bus.last(stream, each)) is not None]
    high = max((message.sequence for message in newest), default=0)
    if below:
        high = min(high, below - 1)
    if not high:
        return
    oldest = max(1, await _first_sequence(bus, stream))
    window = _FIRST_WINDOW
    while high >= oldest:
        low = max(oldest, high - window + 1)
        found = [message for each in filters async for message in _between(bus, stream, each, low, high)]
        for message in sorted(found, key=lambda message: -message.sequence):
            yield message
        high = low - 1
        if len(found) < _ROWS:
            window = min(window * 4, _LAST_WINDOW)


async def listed_subjects(bus: Bus, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT) -> list[str]:
    """The subjects that match and hold a message, as the stream's leader lists them; `timeout` is for each list."""
    found: list[str] = []
    total = 1
    while len(found) < total:
        query = {"subjects_filter": subject_filter, "offset": len(found)}
        info = await bus.request_json(f"$JS.API.STREAM.INFO.{stream}", query, timeout=timeout)
        listed = info["state"].get("subjects") or {}
        total = int(info.get("total", 0)) if listed else 0
        found += listed
    return found


async def _between(bus: Bus, stream: str, subject_filter: str, low: int, high: int) -> AsyncIterator[RawMessage]:
    async for message in oldest_first(bus, stream, subject_filter, after=low - 1):
        if message.sequence > high:
            return
        yield message


async def _first_sequence(bus: Bus, stream: str) -> int:
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{stream}")
    return int(info["state"]["first_seq"])
