"""One replica of the coordinator, without its gRPC face: wired here, and only here."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from handrail.coordinator.alarms import Alarms
from handrail.coordinator.attend import Attendant
from handrail.coordinator.deciding import Deciding
from handrail.coordinator.interventions import Interventions
from handrail.coordinator.leases import DEFAULT_TTL, Leases
from handrail.coordinator.presence import Presence
from handrail.coordinator.publishing import Publishing
from handrail.coordinator.sweep import DEFAULT_INTERVAL, Sweep
from handrail.coordinator.tracking import Tracking
from handrail.mesh.absence import ABSENT_AFTER
from handrail.mesh.bus import Bus
from handrail.mesh.catalog import Catalog
from handrail.mesh.durables import ensure_durables
from handrail.mesh.errors import HandrailError
from handrail.mesh.kv import LeaseBucket
from handrail.mesh.store import FlowStore
from handrail.mesh.streams import ensure_streams

log = logging.getLogger(__name__)

_CATALOG_REFRESH = timedelta(seconds=5)
"""How often other replicas' templates and activations are looked for; a flow of an unknown version looks at once."""


class Replica:
    """The parts of a coordinator. Any number of replicas may run: no flow belongs to one."""

    def __init__(
        self,
        bus: Bus,
        *,
        holder: str,
        lease_ttl: timedelta = DEFAULT_TTL,
        sweep_interval: timedelta = DEFAULT_INTERVAL,
        absent_after: timedelta = ABSENT_AFTER,
    ) -> None:
        self.bus = bus
        self.catalog = Catalog(bus)
        self.store = FlowStore(bus, self.catalog)
        self.leases = Leases(LeaseBucket(bus), holder=holder, ttl=lease_ttl)
        self._presence = Presence(bus, absent_after=absent_after)
        self.attendant = Attendant(self.store, Alarms(bus), self.leases, self._presence)
        self.interventions = Interventions(self.store, self.attendant)
        self.publishing = Publishing(bus, self.catalog, self.store)
        self._deciding = Deciding(bus, self.attendant)
        self._tracking = Tracking(bus, self.store, self.attendant)
        self._sweep = Sweep(bus, self.catalog, self.attendant, self.leases, interval=sweep_interval)

    async def prepare(self, *, replicas: int) -> None:
        """Create or check streams and durables; FOREIGN_STREAM, BROKER_TOO_OLD."""
        await ensure_streams(self.bus, replicas=replicas)
        await self.catalog.refresh()
        await ensure_durables(self.bus, self.catalog.all())

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume the durables and sweep, until `stopping` is set; then finish what was begun."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deciding.run(stopping), name="decide and due")
            tasks.create_task(self._tracking.run(stopping), name="track")
            tasks.create_task(self._sweep.run(stopping), name="sweep")
            tasks.create_task(self._presence.run(stopping), name="presence")
            tasks.create_task(self._keep_catalog(stopping), name="catalog")

    async def _keep_catalog(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await asyncio.wait_for(stopping.wait(), _CATALOG_REFRESH.total_seconds())
            except TimeoutError:
                await self.refresh_catalog()

    async def refresh_catalog(self) -> None:
        """Look for templates that other replicas stored; a broker that does not answer is asked again next time."""
        try:
            await self.catalog.refresh()
        except HandrailError as error:
            log.warning("the templates could not be read: %s", error.text)
