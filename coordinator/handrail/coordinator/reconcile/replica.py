"""One replica of the coordinator, without its gRPC API. All its parts are wired here, and only here."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from handrail.coordinator.lists.index import Index
from handrail.coordinator.reconcile.agent_queues import AgentQueues
from handrail.coordinator.reconcile.beside import WithBeside, crowds
from handrail.coordinator.reconcile.consuming import AtOnce, DurableConsumer, Note
from handrail.coordinator.reconcile.decide_consumer import DecideConsumer
from handrail.coordinator.reconcile.diagnosis import Diagnosis, Findings
from handrail.coordinator.reconcile.due_consumer import DueConsumer
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.hints import Hints
from handrail.coordinator.reconcile.lag import Lag
from handrail.coordinator.reconcile.operator_actions import OperatorActions
from handrail.coordinator.reconcile.presence import Presence
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, Held
from handrail.coordinator.reconcile.supervise import keep_running
from handrail.coordinator.reconcile.sweep import DEFAULT_INTERVAL, Sweep
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.coordinator.reconcile.traffic import Rate
from handrail.coordinator.reconcile.traffic_watch import DEFAULT_LIMIT, TrafficWatch
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.coordinator.routing.router import Router, Take
from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow.absence import ABSENT_AFTER
from handrail.mesh.streams import FLOW, TIMER, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, ensure_durables
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.lease_bucket import LeaseBucket
from handrail.mesh.streams.leases import DEFAULT_TTL, Leases
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.waiting import pause
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""The most deliveries of a durable that one replica handles at a time; the rest stay on the broker."""

_TRACKED = 4096
"""The most deliveries of `track` that one replica holds. They wait for the end of the lag."""

_CATALOG_REFRESH = timedelta(seconds=5)
"""How often to look for other replicas' templates and activations; a flow of an unknown version triggers a look."""


class Replica:
    """The parts of a coordinator. Any number of replicas may run: they share the flows, and each can take any."""

    def __init__(
        self,
        bus: NatsBus,
        *,
        holder: str,
        lease_ttl: timedelta = DEFAULT_TTL,
        sweep_interval: timedelta = DEFAULT_INTERVAL,
        absent_after: timedelta = ABSENT_AFTER,
        sweep_everything: bool = False,
        traffic_limit: Rate = DEFAULT_LIMIT,
        index: Index | None = None,
    ) -> None:
        """With an `index`, the sweep asks it for open flows; whoever passes it closes it."""
        self.bus = bus
        self.catalog = Catalog(bus)
        self.store = FlowStore(bus, self.catalog)
        self.leases = Leases(LeaseBucket(bus), holder=holder, ttl=lease_ttl)
        self._presence = Presence(bus, absent_after=absent_after)
        self.reconciler = Reconciler(
            self.store, TimerSchedule(bus), self._presence, AgentQueues(bus), tell=Hints(bus.connection.send).tell
        )
        self.operator_actions = OperatorActions(self.store, self.reconciler)
        self.troubles = Troubles()
        self.finished = Finished()
        # A broker that lost its latest messages gives their sequences to others.
        bus.connection.on_reconnected.append(self.forget)
        guard = Guard(Quarantine(bus, self.catalog, reporter=COORDINATOR), self.troubles)
        self._traffic = TrafficWatch(traffic_limit)
        self._lag = Lag(self.store, self.reconciler, guard, self.troubles, self.finished)
        self._held = Held()
        self._at_once = AtOnce()
        self._router = Router(bus, on_change=self.reconciler.flows.distrust_timers)
        decide = DecideConsumer(self.reconciler, guard, self._lag, self._at_once)
        self._deciding = self._with_beside(DECIDE, self._holding(decide.take), in_flight=_AT_ONCE)
        self._tracking = self._with_beside(TRACK, self._holding(self._lag.take), in_flight=_TRACKED)
        due = DueConsumer(self.reconciler, guard, self._at_once)
        self._due = DurableConsumer(
            bus, self._router, self._holding(due.take), stream=TIMER, durable=DUE, in_flight=_AT_ONCE
        )
        self._sweep = Sweep(
            bus,
            self.store,
            self.reconciler,
            self.leases,
            self.troubles,
            finished=self.finished,
            index=index or Index(None),
            interval=sweep_interval,
            everything=sweep_everything,
        )

    def _with_beside(self, durable: str, take: Take, *, in_flight: int) -> WithBeside:
        def make(name: str, note: Note) -> DurableConsumer:
            return DurableConsumer(
                self.bus, self._router, take, stream=FLOW, durable=name, in_flight=in_flight, note=note
            )

        # Another replica may notice a crowd first, and hand over what the consumer beside delivers.
        self._router.receive(FLOW, f"{durable}-beside", take)
        return WithBeside(self.bus, self.catalog, self.troubles, durable=durable, make=make, count=self._traffic.count)

    def _holding(self, take: Take) -> Take:
        """Keeps what is taken from being delivered again while it waits."""

        def held(durable: str, delivery: Delivery) -> None:
            self._held.add(delivery)
            take(durable, delivery)

        return held

    async def prepare(self, *, replicas: int | None = None) -> None:
        """Creates missing streams and durables; raises FOREIGN_STREAM, STREAM_LOST or BROKER_TOO_OLD.

        New streams have as many `replicas`; None: as many as FLOW.
        """
        await ensure_streams(self.bus, replicas=replicas)
        await self._count_copies()
        await self.catalog.refresh()
        await ensure_durables(self.bus, self.catalog.all())
        try:
            await ensure_quarantines(self.bus, self.catalog.all())
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_STREAM_FULL:
                raise
            # No flow needs it: the diagnosis tells, and tries again.
            log.error("not every agent has a quarantine: %s", error.text)

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes the durables and sweeps until `stopping` is set, then finishes what is in progress.

        A loop that fails is restarted and counts as a trouble; it stops neither the replica nor other loops.
        """
        loops = {
            DECIDE: self._deciding.run,
            DUE: self._due.run,
            TRACK: self._tracking.run,
            "sweep": self._sweep.run,
            "presence": self._presence.run,
            "catalog": self._keep_catalog,
            "lag": self._lag.run,
            "held": self._held.run,
            "routing": self._router.run,
            "traffic": self._traffic.run,
        }
        async with asyncio.TaskGroup() as tasks:
            for name, run in loops.items():
                tasks.create_task(keep_running(name, run, stopping, self.troubles), name=name)
        await self._at_once.finish()
        await self._lag.flush()

    def diagnosis(self) -> Diagnosis:
        """Returns the diagnosis of this replica and its broker."""
        return Diagnosis(
            self.bus,
            self.catalog,
            self.leases,
            self.troubles,
            refused_pulls=self.refused_pulls,
            forget=self.forget,
            is_crowded=lambda durable: bool(self._left_out().get(durable)),
        )

    def notices(self) -> Findings:
        """The agents that send too much, as `share.<agent>`. Their messages wait; nothing is broken."""
        findings = self._traffic.findings()
        for durable, agents in self._left_out().items():
            findings |= {f"share.{agent}": crowds(agent, durable) for agent in agents}
        return findings

    def _left_out(self) -> dict[str, frozenset[str]]:
        return {DECIDE: self._deciding.left_out, TRACK: self._tracking.left_out}

    @property
    def sharing(self) -> tuple[str, ...]:
        """The replicas that share the flows, this one included."""
        return self._router.members

    @property
    def handed_over(self) -> int:
        """How many deliveries other replicas have from this one and are not done with."""
        return self._router.away

    def refused_pulls(self) -> dict[str, str]:
        """The durables that the broker does not let this replica consume, and the reasons."""
        problems = {DECIDE: self._deciding.problem, DUE: self._due.problem, TRACK: self._tracking.problem}
        return {name: problem for name, problem in problems.items() if problem}

    def forget(self) -> None:
        """Forgets all flows, because the stream was replaced, or may have lost its latest messages."""
        self.reconciler.flows.forget()
        self.finished.clear()

    async def _count_copies(self) -> None:
        info = await self.bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        self.reconciler.flows.replicated = info["config"]["num_replicas"] > 1

    async def _keep_catalog(self, stopping: asyncio.Event) -> None:
        """Keeps looking for templates that other replicas stored, and at the number of copies of FLOW."""
        while not stopping.is_set():
            await pause(stopping, _CATALOG_REFRESH)
            await self._count_copies()
            await self.catalog.refresh()
            self.troubles.succeeded("catalog")
