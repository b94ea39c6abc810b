"""The durable consumer `track`: facts and heartbeats. Sets timers, and looks for tripped rules and stranded flows.

It lags on purpose: messages that arrive close together are grouped by flow, and a flow that begins and completes within
the lag costs no read of its own and no timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from handrail.coordinator.reconcile.consuming import Note, ignore
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, Held, raise_again
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh import streams
from handrail.mesh.bus import Delivery, NatsBus, Pull
from handrail.mesh.fold import fold, is_complete, pinned_version
from handrail.mesh.streams.durables import TRACK
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.waiting import pause
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind

LAG = timedelta(milliseconds=250)
"""How long messages are collected. The broker fires timers every 250 ms at best, so the delay loses nothing."""

IN_FLIGHT = 4096

_AT_ONCE = 32

FlowKey = tuple[str, str]
"""Type and id of a flow."""


class _Batch:
    """The collected messages of one flow: each message once, in stream order, and all its deliveries."""

    __slots__ = ("deliveries", "history")

    def __init__(self) -> None:
        self.history: list[Recorded] = []
        self.deliveries: list[Delivery] = []

    def add(self, delivery: Delivery, recorded: Recorded) -> None:
        """Adds a delivery."""
        self.history.append(recorded)
        self.deliveries.append(delivery)

    def put_in_order(self) -> None:
        """Sorts the messages: the broker delivers them in any order, and redelivers one that is not acknowledged."""
        once = {recorded.sequence: recorded for recorded in self.history}
        self.history = [once[sequence] for sequence in sorted(once)]

    @property
    def last(self) -> Recorded:
        """The newest message."""
        return self.history[-1]


class TrackConsumer:
    """Groups the deliveries of `track`, or of the consumer beside it, by flow. `note` is told of each first."""

    def __init__(
        self,
        bus: NatsBus,
        store: FlowStore,
        reconciler: Reconciler,
        guard: Guard,
        troubles: Troubles,
        finished: Finished,
        *,
        durable: str = TRACK,
        note: Note = ignore,
    ) -> None:
        self._bus = bus
        self._store = store
        self._reconciler = reconciler
        self._guard = guard
        self._troubles = troubles
        self._finished = finished
        self._durable = durable
        self._note = note
        self._collected: list[Delivery] = []
        self._held = Held()
        self._pull: Pull | None = None

    @property
    def problem(self) -> str:
        """The reason why nothing can be consumed at the moment; empty if consuming works."""
        return self._pull.problem if self._pull is not None else ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set, then handles what was collected."""
        self._pull = pull = await self._bus.pull(
            streams.FLOW, self._durable, in_flight=IN_FLIGHT, on_delivery=self._collect
        )
        keeping = asyncio.create_task(self._held.keep(), name=f"keep {self._durable}")
        try:
            while not stopping.is_set():
                await pause(stopping, LAG)
                await self._handle_collected()
        finally:
            await pull.stop()
            await self._handle_collected()
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    def _collect(self, delivery: Delivery) -> None:
        self._note(delivery)
        self._held.add(delivery)
        self._collected.append(delivery)

    async def _handle_collected(self) -> None:
        collected, self._collected[:] = list(self._collected), []
        await self.handle(collected)

    async def handle(self, deliveries: Sequence[Delivery]) -> None:
        """Settles each of these deliveries. A failure is contained within its flow."""
        batches = await self._by_flow(deliveries)
        finished = {key: batch for key, batch in batches.items() if self._seems_finished(key, batch)}
        for key in await self._undecided(finished):
            batch = batches.pop(key)
            self._finished.add(batch.last.sequence)
            for delivery in batch.deliveries:
                delivery.ack()
        slots = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._with_slot(slots, key, batch) for key, batch in batches.items()))

    async def _by_flow(self, deliveries: Iterable[Delivery]) -> dict[FlowKey, _Batch]:
        batches: dict[FlowKey, _Batch] = defaultdict(_Batch)
        for delivery in deliveries:
            try:
                recorded = envelope.decode(
                    delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time
                )
            except Exception as error:
                await self._guard.run(self._durable, [delivery], raise_again(error))
                continue
            batches[recorded.address.flow_type, recorded.address.flow_id].add(delivery, recorded)
        for batch in batches.values():
            batch.put_in_order()
        return batches

    def _seems_finished(self, key: FlowKey, batch: _Batch) -> bool:
        """Tells whether this batch alone shows that the flow began and completed, with nothing in it void.

        A decision between its messages rules that out. A batch that can't be folded is left to a full read, which
        reports the error.
        """
        flow_type, _ = key
        history = batch.history
        first = history[0]
        if first.event.step or first.kind is not Kind.EVENT:
            return False
        template = self._store.known_template(flow_type, pinned_version(history))
        if template is None or not any(recorded.type in template.completes_with for recorded in history):
            return False
        try:
            flow = fold(template, history)
            return is_complete(flow) and not flow.void and not flow.trips
        except Exception as error:
            self._troubles.failed(self._durable, first.event.flow_id, error)
            return False

    async def _undecided(self, finished: Mapping[FlowKey, _Batch]) -> list[FlowKey]:
        """Returns the flows that contain no decision: their batch is the whole flow.

        Whoever appends a decision reads the flow afterwards; here decisions are read after the flow's end is known. So
        one of the two sees what the other wrote, whichever came first. One read serves all flows.
        """
        if not finished:
            return []
        newest = max((batch.last for batch in finished.values()), key=lambda recorded: recorded.sequence)
        try:
            decided = await self._store.decided(finished, behind=newest)
        except Exception as error:
            self._troubles.failed(self._durable, "", error)
            return []
        self._troubles.succeeded(self._durable)
        return [key for key in finished if key not in decided]

    async def _with_slot(self, slots: asyncio.Semaphore, key: FlowKey, batch: _Batch) -> None:
        async with slots:
            await self._guard.run(self._durable, batch.deliveries, self._track(key, batch))

    async def _track(self, key: FlowKey, batch: _Batch) -> None:
        flow = await self._reconciler.reconcile(
            *key, since=batch.history[0].sequence, at_least=batch.last.sequence, now=batch.last.time
        )
        for delivery in {each.sequence: each for each in batch.deliveries}.values():
            await self._guard.quarantine_void(delivery, flow)
