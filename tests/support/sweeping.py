"""A sweep that nothing runs beside."""

from __future__ import annotations

from datetime import timedelta

from handrail.coordinator.lists.index import Index
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.reconcile.sweep import DEFAULT_INTERVAL, Sweep
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from tests.support.mesh import Mesh, publish


class House:
    """A replica without running loops: only the sweep looks at a flow."""

    def __init__(self, mesh: Mesh, index: Index | None = None) -> None:
        self.mesh = mesh
        self.replica = Replica(mesh.bus, holder="test")
        self.finished = Finished()
        self.index = index or Index(None)

    def sweep(self, *, lag: timedelta = timedelta(), interval: timedelta = DEFAULT_INTERVAL) -> Sweep:
        """A sweep that looks at everything up to `lag` ago."""
        replica = self.replica
        return Sweep(
            self.mesh.bus,
            replica.store,
            replica.reconciler,
            replica.leases,
            replica.troubles,
            finished=self.finished,
            index=self.index,
            lag=lag,
            interval=interval,
        )

    async def publish(self, *entries: Entry) -> int:
        """Store messages; the last one's sequence."""
        return await publish(self.mesh.bus, *entries)

    async def armed(self) -> set[str]:
        """The flows that the broker holds timers of."""
        return {subject.split(".")[2] for subject in await self.mesh.armed()}


def another(name: str) -> str:
    """Another flow's id."""
    return ids.flow_id_from_key("refund", name)
