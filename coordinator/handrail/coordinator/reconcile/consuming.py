"""Consumes a durable: its deliveries go to the owners of their flows, and this replica's own to whoever takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.routing.router import Router, Take
from handrail.mesh.bus import Delivery, NatsBus, Pull

Note = Callable[[Delivery], None]
"""Is told of a delivery; it must be quick."""


def ignore(delivery: Delivery) -> None:
    """Takes no note."""


def flow_of(subject: str) -> FlowKey:
    """Returns type and id of the flow in a subject of FLOW or TIMER, unchecked."""
    tokens = subject.split(".", 3)
    return (tokens[1], tokens[2]) if len(tokens) > 2 else ("", "")


class DurableConsumer:
    """Consumes one durable, with at most `in_flight` deliveries in progress. `note` is told of each first."""

    def __init__(
        self,
        bus: NatsBus,
        router: Router,
        take: Take,
        *,
        stream: str,
        durable: str,
        in_flight: int,
        note: Note = ignore,
    ) -> None:
        self._bus = bus
        self._router = router
        self._take = take
        self._stream = stream
        self._durable = durable
        self._in_flight = in_flight
        self._note = note
        self._pull: Pull | None = None
        router.receive(stream, durable, take)

    @property
    def problem(self) -> str:
        """The reason why nothing can be consumed at the moment; empty if consuming works."""
        return self._pull.problem if self._pull is not None else ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set."""
        self._pull = pull = await self._bus.pull(
            self._stream, self._durable, in_flight=self._in_flight, on_delivery=self._on_delivery
        )
        try:
            await stopping.wait()
        finally:
            await pull.stop()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._note(delivery)
        _, flow_id = flow_of(delivery.subject)
        if not self._router.hands_over(self._durable, flow_id, delivery):
            self._take(self._durable, delivery)


class AtOnce:
    """Work on deliveries that begins at once, each in a task of its own. A failure does not disturb the others."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Begins; `work` raises nothing."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Waits for what has begun."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
