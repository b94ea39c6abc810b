"""The deliveries in progress: one task each, reported to the broker while they run, drained when the worker stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from handrail.agents.engine import Engine
from handrail.mesh.bus import Delivery

_AFTERWARDS = 5.0
"""Seconds that cancelled handlers have for clean-up."""


@dataclass(slots=True)
class _InHand:
    """A delivery in progress. `again` are redeliveries of the same message that arrived meanwhile."""

    delivery: Delivery
    since: float
    again: list[Delivery] = field(default_factory=list)


class InFlight:
    """Passes deliveries to an engine. `ack_wait` is how long the broker waits for an ack before it redelivers."""

    def __init__(self, engine: Engine, ack_wait: timedelta) -> None:
        self._engine = engine
        self._pace = ack_wait.total_seconds() / 6
        self._in_hand: dict[int, _InHand] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        """How many deliveries are in progress."""
        return len(self._in_hand)

    def take(self, delivery: Delivery) -> None:
        """Starts to handle a delivery. A message that is already in progress is not handled twice."""
        in_hand = self._in_hand.get(delivery.sequence)
        if in_hand is not None:
            in_hand.again.append(delivery)
            return
        loop = asyncio.get_running_loop()
        in_hand = self._in_hand[delivery.sequence] = _InHand(delivery, loop.time())
        task = loop.create_task(self._handle(in_hand))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def heartbeats(self) -> None:
        """Reports each delivery in progress to the broker at least every third of `ack_wait`, until cancelled.

        One loop over all of them costs less than a timer for each: most finish long before their first report.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pace)
            for in_hand in self._in_hand.values():
                if loop.time() - in_hand.since > self._pace:
                    in_hand.delivery.in_progress()

    async def drain(self, grace: timedelta) -> int:
        """Lets deliveries finish within `grace`, then cancels and hands back the rest. Returns the number cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace.total_seconds())
        abandoned = list(self._tasks)
        for task in abandoned:
            task.cancel()
        if abandoned:
            await asyncio.wait(abandoned, timeout=_AFTERWARDS)
        return len(abandoned)

    async def _handle(self, in_hand: _InHand) -> None:
        try:
            await self._engine.handle(in_hand.delivery)
        finally:
            del self._in_hand[in_hand.delivery.sequence]
            for delivery in in_hand.again:
                # If the first delivery was acked, the broker ignores this answer; otherwise it redelivers the message.
                delivery.nak()
