"""Finds timers that are long overdue: the broker did not fire them, or nobody handled them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from handrail.coordinator.lists.bulk_read import scan
from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.timer_schedule import known_sequence
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import TIMER, stream_walk
from handrail.mesh.wire.subjects import parse_due

GRACE = timedelta(minutes=1)
"""How late a timer may be before it counts as overdue; the broker fires within 0.25 s, or 6 s during an election."""

_FIRED_AT_MOST = 5000
"""The most fired timers that one look handles; when many are late, the durable `due` is working on them anyway."""

_SHARE = 0.2
_RESTS = 10
"""A look walks all pending timers, at 15 µs each, with this share of a core; then it rests, in multiples of its
duration."""

_PAGE = 100
_READING = timedelta(microseconds=8)
"""What the connection takes for a message."""


class Overdue:
    """Looks for overdue timers, with at most a fiftieth of a core."""

    def __init__(self, bus: NatsBus, *, grace: timedelta = GRACE) -> None:
        self._bus = bus
        self._grace = grace
        self._rests_until = 0.0

    async def flows(self) -> dict[FlowKey, int]:
        """Returns type and id of each flow with an overdue timer, and the sequence it is known to have reached, or 0.

        Raises BROKER_UNAVAILABLE.
        """
        loop = asyncio.get_running_loop()
        late = datetime.now(UTC) - self._grace
        found = await self._fired(late)
        if loop.time() >= self._rests_until:
            began_at = loop.time()
            found = await self._not_fired(late) | found
            self._rests_until = loop.time() + _RESTS * (loop.time() - began_at)
        return found

    async def _fired(self, late: datetime) -> dict[FlowKey, int]:
        found: dict[FlowKey, int] = {}
        seen = 0
        async for message in stream_walk.oldest_first(self._bus, TIMER, "due.>"):
            seen += 1
            if message.time > late or seen > _FIRED_AT_MOST:
                break
            for key in _flow_of(message.subject):
                found[key] = max(found.get(key, 0), known_sequence(message.body))
        return found

    async def _not_fired(self, late: datetime) -> dict[FlowKey, int]:
        found: dict[FlowKey, int] = {}
        latest = int(late.timestamp() * 1000)
        pace = Pace(share=_SHARE)
        async with scan(self._bus, TIMER, "timer.>", subjects_only=True, page=_PAGE) as scanning:
            async for page in scanning.pages():
                pace.resume()
                for stored in page:
                    # A timer's name ends with its due time in milliseconds.
                    due = stored.subject.rpartition("-")[2]
                    if due.isdigit() and int(due) < latest and stored.time < late:
                        found |= dict.fromkeys(_flow_of("due" + stored.subject.removeprefix("timer")), 0)
                await pace.keep(len(page) * _READING)
        return found


def _flow_of(subject: str) -> set[FlowKey]:
    try:
        due = parse_due(subject)
    except HandrailError:
        return set()
    return {(due.flow_type, due.flow_id)}
