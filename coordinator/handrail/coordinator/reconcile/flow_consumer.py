"""Consumes the durables of FLOW: `decide`, whose messages may need a decision at once, and `track`, whose may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from handrail.coordinator.reconcile.consuming import Note, ignore
from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.reconcile.lag import Lag
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, Held
from handrail.mesh.bus import Delivery, NatsBus, Pull
from handrail.mesh.streams import FLOW
from handrail.mesh.wire import envelope

Take = Callable[[str, FlowKey, Delivery], None]
"""Takes a delivery that came in a loop, of a flow."""


def flow_of(subject: str) -> FlowKey:
    """Returns type and id of the flow in a subject of FLOW, unchecked."""
    tokens = subject.split(".", 3)
    return (tokens[1], tokens[2]) if len(tokens) > 2 else ("", "")


class FlowConsumer:
    """Passes the deliveries of one durable of FLOW to `take`. `note` is told of each first."""

    def __init__(
        self, bus: NatsBus, held: Held, take: Take, *, durable: str, in_flight: int, note: Note = ignore
    ) -> None:
        self._bus = bus
        self._held = held
        self._take = take
        self._durable = durable
        self._in_flight = in_flight
        self._note = note
        self._pull: Pull | None = None

    @property
    def problem(self) -> str:
        """The reason why nothing can be consumed at the moment; empty if consuming works."""
        return self._pull.problem if self._pull is not None else ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set."""
        self._pull = pull = await self._bus.pull(
            FLOW, self._durable, in_flight=self._in_flight, on_delivery=self._on_delivery
        )
        try:
            await stopping.wait()
        finally:
            await pull.stop()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._note(delivery)
        self._held.add(delivery)
        self._take(self._durable, flow_of(delivery.subject), delivery)


class Deciding:
    """Decides at once on what `decide` delivers; then it waits in the lag with the rest."""

    def __init__(self, reconciler: Reconciler, guard: Guard, lag: Lag) -> None:
        self._reconciler = reconciler
        self._guard = guard
        self._lag = lag
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, loop: str, key: FlowKey, delivery: Delivery) -> None:
        """Takes a delivery. What the flow in hand contains, such as our own appends, is done with."""
        if self._reconciler.covers(key, delivery.sequence):
            self._lag.add(loop, key, delivery)
            return
        task = asyncio.create_task(self.decide(loop, key, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def decide(self, loop: str, key: FlowKey, delivery: Delivery) -> None:
        """Decides on a delivery."""
        if await self._guard.succeeds(loop, [delivery], self._attend(key, delivery)):
            self._lag.add(loop, key, delivery)

    async def finish(self) -> None:
        """Waits for the deliveries in progress."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _attend(self, key: FlowKey, delivery: Delivery) -> None:
        envelope.decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        flow = await self._reconciler.attend(key, at_least=delivery.sequence, now=delivery.time)
        await self._guard.quarantine_void(delivery, flow)
