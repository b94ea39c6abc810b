"""How far the index is behind FLOW."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.listing_pb2 import AsOf
from handrail.visibility.index.database import Position

_FRESH = timedelta(seconds=1)
_PATIENCE = timedelta(seconds=0.5)


class Head:
    """The end of FLOW. The broker is asked once a second at most, however many questions come."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._sequence: int | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def sequence(self) -> int | None:
        """Returns the last sequence of FLOW, a second old at most; None if the broker does not say."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at >= _FRESH.total_seconds():
                self._sequence = await self._ask()
                self._asked_at = now
            return self._sequence

    async def _ask(self) -> int | None:
        try:
            info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=_PATIENCE)
        except HandrailError:
            return None
        return int(info["state"]["last_seq"])


def as_of(position: Position, head: int | None) -> AsOf:
    """Says what an answer at this position covers."""
    return AsOf(
        sequence=position.sequence,
        time=None if position.time is None else timestamp(position.time),
        messages_behind=None if head is None else max(0, head - position.sequence),
    )
