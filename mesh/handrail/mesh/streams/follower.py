"""Follows a small stream: reads it once, and then whatever was added."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from handrail.mesh.bus import Bus, RawMessage, fresh_read
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.waiting import Patience

_PAGE = 200


class Follower:
    """Hands each message of a stream to `take`, in stream order, once."""

    def __init__(self, bus: Bus, stream: str, subject_filter: str, take: Callable[[RawMessage], None]) -> None:
        self._bus = bus
        self._stream = stream
        self._filter = subject_filter
        self._take = take
        self._next_sequence = 1
        self._refreshing = asyncio.Lock()

    async def refresh_from_leader(self) -> None:
        """Reads everything that the stream's leader has now. Required before writes and refusals.

        Raises BROKER_UNAVAILABLE if no replica has it in time.
        """
        newest, _ = await asyncio.gather(fresh_read.newest(self._bus, self._stream, self._filter), self.refresh())
        patience = Patience(READ_TIMEOUT)
        while self._next_sequence <= newest:
            if not await patience.wait():
                raise BrokerUnavailable(
                    f"no replica of the stream {self._stream} has sequence {newest} yet; the last one had "
                    f"{self._next_sequence - 1}"
                )
            await self.refresh()

    async def refresh(self) -> bool:
        """Reads what was stored since the last time. Returns whether there was anything. The replica may lag."""
        async with self._refreshing:
            began_at = self._next_sequence
            while True:
                page = await self._bus.read_forward(
                    self._stream, self._filter, from_sequence=self._next_sequence, limit=_PAGE
                )
                for message in page.messages:
                    self._take(message)
                    self._next_sequence = message.sequence + 1
                if not page.pending:
                    return self._next_sequence > began_at
