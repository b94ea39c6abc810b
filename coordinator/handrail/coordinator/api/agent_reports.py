"""What is looked up about agents: their live workers, and how long messages wait for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.durables import Durable
from handrail.mesh.streams.workers import Workers, live_workers

_logger = logging.getLogger(__name__)

FRESH = timedelta(seconds=5)
"""How long an answer is given again: however many callers look, an agent is looked up once in this time."""

_SHARE = 20
_STALEST = timedelta(seconds=20)
"""It is given again for so many times as long as the look took, up to this. Where the next message for an agent that is
down is far from what it settled last, the broker takes some 50 ms to find it among 400,000 messages."""

_MOST_FILTERS = 16
"""A message is looked for by each filter of a durable; with more filters, none is."""

_LONGEST_LOOK = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Report:
    """The live workers of an agent, and when the oldest message was stored that it has not settled, if it is known."""

    workers: Workers
    oldest: datetime | None


_NEVER = (0.0, Report(Workers("", {}), None))


class AgentReports:
    """Looks agents up for all callers of a replica."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: dict[str, tuple[float, Report]] = {}
        self._looking = asyncio.Lock()

    async def of(self, durables: Mapping[str, Sequence[Durable]]) -> dict[str, Report]:
        """Agent -> its report, as of some seconds ago at most. `durables` are those of each agent.

        Raises the errors of `Bus.direct_get`.
        """
        async with self._looking:
            begun = time.monotonic()
            old = [each for each in durables if self._known.get(each, _NEVER)[0] <= begun]
            workers = await live_workers(self._bus, old)
            await asyncio.gather(*(self._look(workers[each], durables[each]) for each in old))
            return {agent: self._known[agent][1] for agent in durables}

    async def _look(self, workers: Workers, durables: Sequence[Durable]) -> None:
        begun = time.monotonic()
        oldest = await self._oldest(durables)
        ended = time.monotonic()
        stale_after = min(max(FRESH, timedelta(seconds=ended - begun) * _SHARE), _STALEST)
        self._known[workers.agent] = (ended + stale_after.total_seconds(), Report(workers, oldest))

    async def _oldest(self, durables: Sequence[Durable]) -> datetime | None:
        try:
            found = [await oldest_unsettled(self._bus, each) for each in durables]
        except HandrailError as error:
            _logger.warning("can't tell how long messages wait for %s: %s", durables[0].agent, error.text)
            return None
        return min((each for each in found if each is not None), default=None)


async def oldest_unsettled(bus: Bus, durable: Durable) -> datetime | None:
    """When the oldest message was stored that a durable has not delivered, or whose delivery is not acknowledged.

    None if there is none, or if the durable has too many filters to look for one. The broker looks for it as it does
    for the next delivery: from what is settled on. Raises the errors of `Bus.first_on_leader`.
    """
    if (not durable.pending and not durable.ack_pending) or len(durable.delivered) > _MOST_FILTERS:
        return None
    begin = durable.settled_up_to + 1
    found = await asyncio.gather(
        *(
            bus.first_on_leader(durable.stream, each, from_sequence=begin, timeout=_LONGEST_LOOK)
            for each in durable.delivered
        )
    )
    return min((each.time for each in found if each is not None), default=None)
