"""The durable `track`: facts and heartbeats. Arms and clears timers, and looks for tripped rules and stranded flows.

It lags on purpose: the messages of a moment are taken together per flow, and a flow that began and ended within the
lag costs no read and no timer at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from datetime import timedelta

from handrail.coordinator.attend import Attendant
from handrail.coordinator.handling import guarded, quarantine_void, raise_again
from handrail.mesh import envelope, streams
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold, is_complete, pinned_version
from handrail.mesh.store import FlowStore
from handrail.mesh.subjects import Kind

LAG = timedelta(milliseconds=250)
"""How long messages are collected. The broker fires timers every 250 ms at best, so nothing is lost by it."""

IN_FLIGHT = 4096

_AT_ONCE = 32


class Tracking:
    """Takes the deliveries of `track` together per flow."""

    def __init__(self, bus: Bus, store: FlowStore, attendant: Attendant) -> None:
        self._bus = bus
        self._store = store
        self._attendant = attendant
        self._collected: list[Delivery] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set, then handle what was collected."""
        pull = await self._bus.pull(streams.FLOW, "track", in_flight=IN_FLIGHT, on_delivery=self._collected.append)
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LAG.total_seconds())
            await self._handle_collected()
        await pull.stop()
        await self._handle_collected()

    async def _handle_collected(self) -> None:
        collected, self._collected[:] = list(self._collected), []
        flows: dict[tuple[str, str], list[tuple[Delivery, Recorded]]] = defaultdict(list)
        for delivery in collected:
            try:
                recorded = envelope.decode(
                    delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time
                )
            except HandrailError as error:
                await guarded(self._bus, [delivery], raise_again(error))
                continue
            flows[recorded.address.flow_type, recorded.address.flow_id].append((delivery, recorded))
        slots = asyncio.Semaphore(_AT_ONCE)
        waiting = []
        for (flow_type, flow_id), batch in flows.items():
            deliveries = [delivery for delivery, _ in batch]
            flow = self._folded_from(flow_type, [recorded for _, recorded in batch])
            if flow is not None:
                for delivery in deliveries:
                    delivery.ack()
                continue
            waiting.append(self._with_slot(slots, flow_type, flow_id, deliveries))
        await asyncio.gather(*waiting)

    def _folded_from(self, flow_type: str, batch: list[Recorded]) -> Flow | None:
        """The flow, if this batch alone shows that it began and completed, and nothing in it is void."""
        batch.sort(key=lambda recorded: recorded.sequence)
        first = batch[0]
        if first.event.step or first.kind is not Kind.EVENT:
            return None
        template = self._store.known_template(flow_type, pinned_version(batch))
        if template is None or not any(recorded.type in template.completes_with for recorded in batch):
            return None
        flow = fold(template, batch)
        return flow if is_complete(flow) and not flow.void and not flow.trips else None

    async def _with_slot(
        self, slots: asyncio.Semaphore, flow_type: str, flow_id: str, deliveries: list[Delivery]
    ) -> None:
        async with slots:
            await guarded(self._bus, deliveries, self._track(flow_type, flow_id, deliveries))

    async def _track(self, flow_type: str, flow_id: str, deliveries: list[Delivery]) -> None:
        sequences = [delivery.sequence for delivery in deliveries]
        flow = await self._attendant.attend(
            flow_type,
            flow_id,
            since=min(sequences),
            at_least=max(sequences),
            now=max(delivery.time for delivery in deliveries),
        )
        for delivery in deliveries:
            await quarantine_void(self._bus, delivery, flow)
