"""The queues of agents: whether a message was ever delivered to a worker, and whether its agent is at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from handrail.mesh.bus import ApiError, Bus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.bus.direct_get import parse_time
from handrail.mesh.flow.queue import Queue, Queues
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.durables import agent_durable

_SERVES_FOR = timedelta(seconds=1)
"""How long one look at a queue is valid, so that many attempts of an agent that are due at once share it."""


class AgentQueues:
    """Reads the state of the agents' durables."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._looking = asyncio.Lock()
        self._seen: dict[str, tuple[float, Queue | None]] = {}

    async def of(self, agents: Iterable[str]) -> Queues:
        """Returns the queues of these agents, at most a second old; agents without a durable are omitted.

        Raises what `Bus.request_json` raises.
        """
        found = {agent: await self._queue(agent) for agent in sorted(agents)}
        return {agent: queue for agent, queue in found.items() if queue is not None}

    async def _queue(self, agent: str) -> Queue | None:
        async with self._looking:
            seen = self._seen.get(agent)
            if seen is None or time.monotonic() - seen[0] > _SERVES_FOR.total_seconds():
                seen = self._seen[agent] = (time.monotonic(), await self._look(agent))
            return seen[1]

    async def _look(self, agent: str) -> Queue | None:
        try:
            info = await self._bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{agent_durable(agent)}")
        except ApiError as error:
            if error.code == CONSUMER_NOT_FOUND:
                return None
            raise
        quiet = _since(info, "delivered")
        idle = timedelta() if info.get("num_waiting") else min(quiet, _since(info, "ack_floor"))
        return Queue(int(info["delivered"]["stream_seq"]), idle=idle, quiet=quiet)


def _since(info: Mapping[str, Any], part: str) -> timedelta:
    """Returns how long ago the durable last delivered or was acknowledged, by the broker's clock."""
    last = info[part].get("last_active")
    return max(timedelta(), parse_time(info["ts"]) - parse_time(last)) if last else timedelta.max
