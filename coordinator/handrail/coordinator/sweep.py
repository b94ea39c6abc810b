"""The sweep: pages through all flows and attends to those that are not over. It finds what every other safety net
missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from handrail.coordinator.attend import Attendant
from handrail.coordinator.leases import Leases
from handrail.coordinator.troubles import Troubles
from handrail.mesh import streams
from handrail.mesh.bus import Bus
from handrail.mesh.catalog import Catalog
from handrail.mesh.errors import HandrailError
from handrail.mesh.subjects import Kind, parse
from handrail.v1.decision_pb2 import FlowClosed
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

DEFAULT_INTERVAL = timedelta(minutes=1)

_PAGE = 100_000
"""Subjects per answer of STREAM.INFO: the broker's limit."""

_PAUSE_PER_FLOW = timedelta(milliseconds=2)
"""A sweep is in no hurry: it leaves the broker to the agents."""

_CLOSED = FlowClosed.DESCRIPTOR.full_name


class Sweep:
    """One replica at a time looks at every flow that has neither a completing nor a closing subject."""

    def __init__(
        self,
        bus: Bus,
        catalog: Catalog,
        attendant: Attendant,
        leases: Leases,
        troubles: Troubles,
        *,
        interval: timedelta = DEFAULT_INTERVAL,
    ) -> None:
        self._bus = bus
        self._catalog = catalog
        self._attendant = attendant
        self._leases = leases
        self._troubles = troubles
        self._interval = interval

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep at each interval until `stopping` is set."""
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._interval.total_seconds())
                return
            try:
                async with self._leases.hold("duty.sweep"):
                    await self.sweep()
            except HandrailError as error:
                if error.reason != ErrorReason.ERROR_REASON_FLOW_BUSY:
                    raise
                log.debug("no sweep this time: %s", error.text)

    async def sweep(self) -> int:
        """Attend to every flow that is not over; returns how many those were."""
        attended = 0
        for flow_type in sorted({template.name for template in self._catalog.all()}):
            async for flow_id in self._unfinished(flow_type):
                await self._attend(flow_type, flow_id)
                attended += 1
                await asyncio.sleep(_PAUSE_PER_FLOW.total_seconds())
        return attended

    async def _attend(self, flow_type: str, flow_id: str) -> None:
        try:
            await self._attendant.attend(flow_type, flow_id, since=0, at_least=0, now=datetime.now(UTC))
        except Exception as error:
            self._troubles.failed("sweep", flow_id, error)
        else:
            self._troubles.succeeded("sweep", flow_id)

    async def _unfinished(self, flow_type: str) -> AsyncIterator[str]:
        completing = {name for template in self._catalog.versions(flow_type) for name in template.completes_with}
        over: set[str] = set()
        seen: dict[str, None] = {}
        async for subject in self._subjects(flow_type):
            try:
                address = parse(subject)
            except HandrailError:
                continue
            seen[address.flow_id] = None
            completes = address.kind in (Kind.EVENT, Kind.RELEASED) and address.message_type in completing
            if completes or address.message_type == _CLOSED:
                over.add(address.flow_id)
        for flow_id in seen:
            if flow_id not in over:
                yield flow_id

    async def _subjects(self, flow_type: str) -> AsyncIterator[str]:
        offset = 0
        while True:
            answer = await self._bus.request_json(
                f"$JS.API.STREAM.INFO.{streams.FLOW}",
                {"subjects_filter": f"flow.{flow_type}.>", "offset": offset},
            )
            page = answer["state"].get("subjects") or {}
            for subject in page:
                yield subject
            offset += len(page)
            if len(page) < _PAGE:
                return
