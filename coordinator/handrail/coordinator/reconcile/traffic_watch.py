"""Watches the traffic of agents, as one replica is handed it, and reports the agents that send too much.

A replica judges what reaches it: what an agent may send grows with the number of replicas, as does what they can do.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from handrail.coordinator.reconcile.diagnosis import Findings
from handrail.coordinator.reconcile.traffic import Rate, Traffic, how_to_stop
from handrail.mesh import telemetry
from handrail.mesh.bus import Delivery
from handrail.mesh.waiting import pause
from handrail.mesh.wire.subjects import COORDINATOR, agent_of

log = logging.getLogger(__name__)

DEFAULT_LIMIT = Rate(messages=300, bytes=2_000_000)
"""A replica handles 500 to 1,000 messages a second that need a look at their flow: this is about half of it. 2 MB a
second are 170 GB a day on the disk of the broker."""

_EVERY = timedelta(seconds=2)


class TrafficWatch:
    """Counts deliveries, and looks at the rates every two seconds."""

    def __init__(self, limit: Rate = DEFAULT_LIMIT) -> None:
        self._traffic = Traffic(limit)
        self._findings: Findings = {}

    def count(self, delivery: Delivery) -> None:
        """Counts a delivery, unless it was delivered before or is the coordinator's own."""
        if delivery.delivered > 1:
            return
        agent = agent_of(delivery.subject)
        if agent != COORDINATOR:
            self._traffic.add(agent, len(delivery.subject) + len(delivery.body))

    def findings(self) -> Findings:
        """Returns the agents that send too much, as `share.<agent>`, and what to do."""
        return dict(self._findings)

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping` is set."""
        loop = asyncio.get_running_loop()
        while not stopping.is_set():
            await pause(stopping, _EVERY)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Looks once. Logs an error when an agent begins to send too much, and a line when that has ended."""
        excesses = self._traffic.excesses(now)
        for agent, rate in excesses.items():
            if _part(agent) not in self._findings:
                text = self._findings[_part(agent)] = _text(agent, rate, self._traffic.limit)
                telemetry.count("share_exceeded", agent=agent)
                log.error("%s", text)
        for part in self._findings.keys() - map(_part, excesses):
            del self._findings[part]
            log.warning("%s: the agent sends less than half of its limit again", part)


def _part(agent: str) -> str:
    return f"share.{agent}"


def _text(agent: str, rate: Rate, limit: Rate) -> str:
    return (
        f"agent {agent} sends {rate.messages:,.0f} messages/s (limit {limit.messages:,.0f}) and "
        f"{rate.bytes / 1e6:,.1f} MB/s (limit {limit.bytes / 1e6:,.1f}), over ten seconds; to stop it: "
        f"{how_to_stop(agent)}"
    )
