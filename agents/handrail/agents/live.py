"""The mesh as a worker has it: over the bus."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from google.protobuf.any_pb2 import Any

from handrail.mesh.bus import Bus
from handrail.mesh.streams import quarantine, start_flow, workers
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.start_flow import Started
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.worker_pb2 import WorkerState


class LiveMesh:
    """See `handrail.agents.ports.Mesh`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.templates = Catalog(bus)
        self._store = FlowStore(bus, self.templates)
        self.publish = bus.publish
        self.load = self._store.load

    def now(self) -> datetime:
        """This machine's clock."""
        return datetime.now(UTC)

    async def sleep(self, duration: timedelta) -> None:
        """Wait."""
        await asyncio.sleep(duration.total_seconds())

    async def stored_outcome(self, flow_type: str, flow_id: str, agent: str, event_id: str) -> Recorded | None:
        """What the stream holds; None where it holds nothing for two seconds."""
        return await self._store.stored_outcome(flow_type, flow_id, agent, event_id)

    async def start(self, template: Template, *, source: str, data: Any, key: str) -> Started:
        """Store the first event of a flow, once per key."""
        return await start_flow.start(
            self._bus, template, source=source, data=data, key=key, template_of=self.templates.template
        )

    async def quarantine(
        self,
        *,
        subject: str,
        body: bytes,
        sequence: int,
        reason: ErrorReason.ValueType,
        detail: str,
        reporter: str,
    ) -> None:
        """Store a message in QUARANTINE."""
        await quarantine.put(
            self._bus,
            subject=subject,
            body=body,
            sequence=sequence,
            reason=reason,
            detail=detail,
            reporter=reporter,
        )

    async def announce(self, agent: str, worker: str, state: WorkerState) -> None:
        """Say that a worker is there."""
        await workers.announce(self._bus, agent, worker, state)
