"""Decides what happens next in a World: who receives which message, and when."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from handrail.mesh.bus import RawMessage
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.durables import ACK_WAIT
from handrail.testing.hosting import HostedAgent, HostedCoordinator
from handrail.testing.memory import MemoryBus, MemoryDelivery

_STEPS = 100_000
"""A World that is still busy after this many deliveries is considered to be in a loop."""


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A message for one receiver, and its delivery count at the next delivery."""

    host: HostedAgent | HostedCoordinator
    message: RawMessage
    delivered: int = 1


class Schedule:
    """Delivers messages one by one, in stream order or, with a seed, in an order that the seed determines."""

    def __init__(
        self,
        bus: MemoryBus,
        coordinator: HostedCoordinator,
        agents: Mapping[str, HostedAgent],
        *,
        seed: int | None,
    ) -> None:
        self._bus = bus
        self._coordinator = coordinator
        self._agents = agents
        self._chance = random.Random(seed) if seed is not None else None
        self._queue: list[_Work] = []
        self._later: list[tuple[datetime, int, _Work]] = []
        self._numbers = count()
        self._seen = 0

    async def settle(self) -> None:
        """Delivers everything that is due at the present time."""
        for _ in range(_STEPS):
            self._hand_out()
            ready = [work for work in self._queue if work.host.running]
            if not ready:
                return
            work = self._chance.choice(ready) if self._chance else ready[0]
            self._queue.remove(work)
            await self._do(work)
        raise RuntimeError(f"the World is still busy after {_STEPS} deliveries")

    async def advance(self, duration: timedelta) -> None:
        """Moves the clock, and handles everything that falls due on the way, in order."""
        await self.settle()
        target = self._bus.now + duration
        while (due := self._next_due()) is not None and due <= target:
            self._bus.now = max(due, self._bus.now)
            await self._fire()
            await self.settle()
        self._bus.now = target

    async def catch_up(self) -> None:
        """Handles what fell due while no coordinator was running."""
        await self._fire()
        await self.settle()

    def _hand_out(self) -> None:
        """Queues the messages stored since the last call for every receiver whose durable delivers them."""
        messages = self._bus.messages[FLOW]
        for message in messages[bisect_right(messages, self._seen, key=_sequence) :]:
            for hosted in self._agents.values():
                hosted.hear(message.subject)
                if hosted.wants(message.subject):
                    self._queue.append(_Work(hosted, message))
            if self._coordinator.wants(message.subject):
                self._queue.append(_Work(self._coordinator, message))
            self._seen = message.sequence
        while self._later and self._later[0][0] <= self._bus.now:
            self._queue.append(heapq.heappop(self._later)[2])

    async def _do(self, work: _Work) -> None:
        def on_settled(delay: timedelta | None) -> None:
            if delay is not None:
                self._again(work, delay)

        delivery = MemoryDelivery(work.message, work.delivered, on_settled)
        await work.host.handle(delivery)
        if not delivery.settled:
            self._again(work, ACK_WAIT)

    def _again(self, work: _Work, delay: timedelta) -> None:
        again = _Work(work.host, work.message, work.delivered + 1)
        heapq.heappush(self._later, (self._bus.now + delay, next(self._numbers), again))

    def _next_due(self) -> datetime | None:
        due = [self._later[0][0]] if self._later else []
        timer = self._bus.next_timer() if self._coordinator.running else None
        return min([*due, timer] if timer else due, default=None)

    async def _fire(self) -> None:
        if self._coordinator.running:
            for subject in self._bus.fire():
                await self._coordinator.due(subject)


def _sequence(message: RawMessage) -> int:
    return message.sequence
