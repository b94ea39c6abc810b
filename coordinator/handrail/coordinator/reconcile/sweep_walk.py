"""The walk of the sweep over the new messages of FLOW, at a pace that leaves the rest to the flows that go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from handrail.analysis.replay.stored import Stored
from handrail.coordinator.lists.bulk_read import scan
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.sweep_marks import first_after, last_before
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW

LAG = timedelta(minutes=2)
"""How far the sweep stays behind the end of the stream. `track`, `decide` and `due` handle younger messages; and the
broker syncs to disk every two minutes, so messages that a power failure removes are walked over again."""

_WINDOW = 20_000
"""Messages per window: most flows are complete within one."""

_READ_AT_MOST = 100_000
"""Messages to read for a window, those of finished flows included: that takes 16 s."""

SHARE = 0.05
"""How much of a core it takes: it leaves the rest, and the broker, to the flows that go on."""

LATE = timedelta(minutes=10)
_SHARE_IF_LATE = 0.2
"""How much it takes while it is so much further behind."""

_PAGE = 100
_READING = timedelta(microseconds=8)
"""What the connection takes for a message."""

_JUMP = 2000
"""It passes by so many messages of closed flows, rather than to read them too."""


class Window(NamedTuple):
    """Messages in stream order. With them, nothing up to this sequence is left out but messages of finished flows."""

    messages: list[Stored]
    up_to: int


class SweepWalk:
    """Walks up to `lag` behind the end of the stream, and leaves out most messages of `finished` flows."""

    def __init__(self, bus: NatsBus, finished: Finished, *, lag: timedelta) -> None:
        self._bus = bus
        self._finished = finished
        self._lag = lag
        self.pace = Pace(share=SHARE)

    async def end(self, *, ago: timedelta = timedelta()) -> int:
        """Returns the last sequence that a walk reaches now, or reached so long ago. Raises BROKER_UNAVAILABLE."""
        return await last_before(self._bus, datetime.now(UTC) - self._lag - ago)

    async def set_pace(self, *, after: int, late: timedelta = LATE) -> None:
        """Takes more of a core if what comes after this sequence is so `late`. Raises BROKER_UNAVAILABLE."""
        is_late = after < await self.end(ago=late)
        self.pace.share = _SHARE_IF_LATE if is_late else SHARE

    async def windows(self, *, after: int, late: timedelta = LATE) -> AsyncIterator[Window]:
        """Yields the messages after this sequence. The last window says how far they reach, and may be empty. It takes
        more of a core while it is `late`.

        Raises BROKER_UNAVAILABLE.
        """
        up_to = max(after, await self.end())
        window: list[Stored] = []
        read = 0
        while (first := self._finished.first_other(after)) <= up_to:
            after = first - 1
            await self.set_pace(after=after, late=late)
            async with scan(self._bus, FLOW, "flow.>", after=after, page=_PAGE) as scanning:
                async for page in scanning.pages():
                    self.pace.resume()
                    after = page[-1].sequence
                    window += [each for each in page if each.sequence <= up_to and each.sequence not in self._finished]
                    read += len(page)
                    await self.pace.keep(len(page) * _READING)
                    is_full = len(window) >= _WINDOW or read >= _READ_AT_MOST
                    if is_full or after >= up_to or self._finished.first_other(after) > after + _JUMP:
                        break
                else:
                    after = up_to = await self._confirmed(after, up_to)
            if len(window) >= _WINDOW or read >= _READ_AT_MOST:
                yield Window(window, min(after, up_to))
                window, read = [], 0
        yield Window(window, up_to)

    async def _confirmed(self, after: int, up_to: int) -> int:
        """Returns `up_to` if the stream's leader has nothing between, else `after`: who was read lags behind."""
        first = await first_after(self._bus, after)
        return up_to if first is None or first > up_to else after
