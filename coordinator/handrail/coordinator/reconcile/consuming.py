"""Consumes a durable, many deliveries at a time. Each is isolated: a failure does not disturb the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from handrail.coordinator.reconcile.settle import Guard, Held
from handrail.mesh.bus import Delivery, NatsBus, Pull

IN_FLIGHT = 64
"""The most deliveries of a durable that one replica handles at a time; the rest stay on the broker."""

Handle = Callable[[Delivery], Coroutine[None, None, None]]

Note = Callable[[Delivery], None]
"""Is told of a delivery; it must be quick."""


def ignore(delivery: Delivery) -> None:
    """Takes no note."""


class DurableConsumer:
    """Passes the deliveries of one durable to `handle`."""

    def __init__(self, bus: NatsBus, guard: Guard, held: Held, *, stream: str, durable: str, handle: Handle) -> None:
        self._bus = bus
        self._guard = guard
        self._stream = stream
        self._durable = durable
        self._handle = handle
        self._held = held
        self._pull: Pull | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def problem(self) -> str:
        """The reason why nothing can be consumed at the moment; empty if consuming works."""
        return self._pull.problem if self._pull is not None else ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set, then finishes the deliveries in progress."""
        self._pull = pull = await self._bus.pull(
            self._stream, self._durable, in_flight=IN_FLIGHT, on_delivery=self._begin
        )
        try:
            await stopping.wait()
        finally:
            await pull.stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, delivery: Delivery) -> None:
        self._held.add(delivery)
        task = asyncio.create_task(self._guard.run(self._durable, [delivery], self._handle(delivery)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
