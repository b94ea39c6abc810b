"""The deliveries in progress: reported to the broker while they run, drained when the worker stops. Only those that
need a wait have a task each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from handrail.agents.engine import Engine, Prepared
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
        self._loop = asyncio.get_running_loop()
        self._pace = ack_wait.total_seconds() / 6
        self._in_hand: dict[int, _InHand] = {}
        self._waiting: deque[_InHand] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = 0
        self._last_waited = False
        self._emptied = asyncio.Event()

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
        in_hand = self._in_hand[delivery.sequence] = _InHand(delivery, self._loop.time())
        self._waiting.append(in_hand)
        self._run(len(self._waiting) if self._last_waited else 1)

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
        if self._in_hand:
            self._emptied.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace.total_seconds()):
                    await self._emptied.wait()
        abandoned = [task for task in self._tasks if not task.done()]
        for task in abandoned:
            task.cancel()
        if abandoned:
            await asyncio.wait(abandoned, timeout=_AFTERWARDS)
        for in_hand in self._in_hand.values():
            in_hand.delivery.nak()  # whether its answer is stored is not known yet
        return len(abandoned)

    def _run(self, tasks: int) -> None:
        """Starts tasks until so many are free to take the waiting deliveries."""
        while self._free < tasks:
            self._free += 1
            self._start(self._take_all())

    async def _take_all(self) -> None:
        """Handles the waiting deliveries up to the first that needs a wait. Then this task is that delivery's: so a
        handler has the same task from its beginning to its end.

        Those behind it, and those that come next, probably wait, too. They get a task each, in the same turn of the
        loop: with one turn for each delivery, what they send would go out one by one.
        """
        is_free = True
        try:
            while self._waiting:
                in_hand = self._waiting.popleft()
                prepared = self._begin(in_hand)
                self._last_waited = prepared is not None
                if prepared is not None:
                    is_free = False
                    self._free -= 1
                    self._run(len(self._waiting))
                    await self._handle(in_hand, prepared)
                    return
        finally:
            if is_free:
                self._free -= 1
                self._run(min(1, len(self._waiting)))

    def _begin(self, in_hand: _InHand) -> Prepared | None:
        try:
            return self._engine.begin(in_hand.delivery, partial(self._go_on, in_hand))
        except BaseException:
            self._done(in_hand)
            raise

    def _go_on(self, in_hand: _InHand, prepared: Prepared | None) -> None:
        if prepared is None:
            self._done(in_hand)
        else:
            self._start(self._handle(in_hand, prepared))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, in_hand: _InHand, prepared: Prepared) -> None:
        try:
            await self._engine.handle(in_hand.delivery, prepared)
        finally:
            self._done(in_hand)

    def _done(self, in_hand: _InHand) -> None:
        del self._in_hand[in_hand.delivery.sequence]
        for delivery in in_hand.again:
            # If the first delivery was acked, the broker ignores this answer; otherwise it redelivers the message.
            delivery.nak()
        if not self._in_hand:
            self._emptied.set()
