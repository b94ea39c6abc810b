"""The durables `decide` and `due`: messages that may need a decision, and timers that fired."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from handrail.coordinator.attend import Attendant
from handrail.coordinator.handling import HOPELESS, guarded, quarantine_void
from handrail.mesh import envelope, streams
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.subjects import parse_due

log = logging.getLogger(__name__)

IN_FLIGHT = 64
"""Flows that one replica attends to at a time."""


class Deciding:
    """Feeds the deliveries of `decide` and `due` to the attendant, many flows at a time."""

    def __init__(self, bus: Bus, attendant: Attendant) -> None:
        self._bus = bus
        self._attendant = attendant
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set, then finish what was begun."""
        pulls = [
            await self._bus.pull(streams.FLOW, "decide", in_flight=IN_FLIGHT, on_delivery=self._begin(self._decide)),
            await self._bus.pull(streams.TIMER, "due", in_flight=IN_FLIGHT, on_delivery=self._begin(self._due)),
        ]
        await stopping.wait()
        await asyncio.gather(*(pull.stop() for pull in pulls))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, handle: Callable[[Delivery], Coroutine[None, None, None]]) -> Callable[[Delivery], None]:
        def on_delivery(delivery: Delivery) -> None:
            task = asyncio.create_task(guarded(self._bus, [delivery], handle(delivery)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return on_delivery

    async def _decide(self, delivery: Delivery) -> None:
        recorded = envelope.decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        flow_type, flow_id = recorded.address.flow_type, recorded.address.flow_id
        flow = await self._attendant.attend(
            flow_type, flow_id, since=delivery.sequence, at_least=delivery.sequence, now=delivery.time
        )
        await quarantine_void(self._bus, delivery, flow)

    async def _due(self, delivery: Delivery) -> None:
        due = parse_due(delivery.subject)
        try:
            await self._attendant.attend(due.flow_type, due.flow_id, since=0, at_least=0, now=delivery.time)
        except HandrailError as error:
            if error.reason not in HOPELESS:
                raise
            log.warning("timer %s has no flow any more: %s", delivery.subject, error.text)
