"""The processes of a World: agents on the SDK's own engine, and the coordinator's own reconciler, driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal

from handrail.agents import Agent
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company
from handrail.agents.engine import Engine, Prepared
from handrail.agents.halted_flows import LOOKED_AT, HaltedFlows
from handrail.agents.threads import Threads
from handrail.coordinator.reconcile.agent_queues import AgentQueues
from handrail.coordinator.reconcile.operator_actions import OperatorActions
from handrail.coordinator.reconcile.presence import Presence, Present
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, is_given_up
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT, Stored
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow.absence import ABSENT_AFTER, Absence
from handrail.mesh.flow.queue import Queues
from handrail.mesh.permissions import matches
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import agent_filters, coordinator_filters
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.leases import Leases
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.template import Template
from handrail.mesh.wire import envelope
from handrail.mesh.wire.subjects import COORDINATOR, parse_due
from handrail.testing.memory import MemoryBus, MemoryDelivery

CrashPoint = Literal["publish", "ack"]


class ProcessDied(BaseException):
    """Simulates SIGKILL. Code that catches it can't publish any more: see `MortalBus.dead`."""


class MortalBus:
    """One process's view of a MemoryBus, in which the process can be made to crash.

    `crash` is where it crashes next; `dead` is set until a new process takes its place.
    """

    def __init__(self, bus: MemoryBus) -> None:
        self._publish, self._publish_nowait = bus.publish, bus.publish_nowait
        self.direct_get, self.read_forward = bus.direct_get, bus.read_forward
        self.last, self.last_on_leader, self.by_sequence = bus.last, bus.last_on_leader, bus.by_sequence
        self.first_on_leader, self.request_json = bus.first_on_leader, bus.request_json
        self.crash: CrashPoint | None = None
        self.dead = False

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> int:
        """Stores a message, unless the process crashes here."""
        self._die_if_due()
        return await self._publish(
            subject,
            body,
            expected_sequence=expected_sequence,
            expected_filter=expected_filter,
            headers=headers,
            timeout=timeout,
        )

    def publish_nowait(
        self,
        subject: str,
        body: bytes,
        on_stored: Stored,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> None:
        """Stores a message, unless the process crashes here."""
        self._die_if_due()
        self._publish_nowait(
            subject,
            body,
            on_stored,
            expected_sequence=expected_sequence,
            expected_filter=expected_filter,
            headers=headers,
            timeout=timeout,
        )

    def _die_if_due(self) -> None:
        if self.dead or self.crash == "publish":
            # Code that catches the exception is still dead: it can't publish any more.
            self.crash, self.dead = None, True
            raise ProcessDied


class WorldClock(Clock):
    """The World's clock."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def now(self) -> datetime:
        """The present time, as set by the test."""
        return self._bus.now

    async def sleep(self, duration: timedelta) -> None:
        """Returns at once: only the test moves the clock, so quick retries don't wait."""


class HostedAgent:
    """One agent, run as in a worker."""

    def __init__(self, agent: Agent, bus: MemoryBus, threads: Threads) -> None:
        self.agent = agent
        self.running = True
        self.bus = MortalBus(bus)
        self.catalog = Catalog(self.bus)
        self.store = FlowStore(self.bus, self.catalog)
        clock = WorldClock(bus)
        self.bindings = Bindings(agent.name, agent.handlers)
        self.hints = HaltedFlows()
        self.patience = BrokerRetry(clock)
        self.engine = Engine(
            bindings=self.bindings,
            bus=self.bus,
            store=self.store,
            clock=clock,
            patience=self.patience,
            hints=self.hints,
            retries=agent.quick_retries,
            threads=threads,
            company=Company(),
        )
        self._filters: frozenset[str] = frozenset()

    async def learn(self, templates: Iterable[Template]) -> list[str]:
        """Loads the templates. Returns the problems of handlers that don't fit."""
        templates = tuple(templates)
        await self.catalog.refresh()
        known = self.catalog.all()
        self.bindings.learn(known)
        self._filters = agent_filters(templates).get(self.agent.name, frozenset())
        return [problem for template in known for problem in self.bindings.of(template).problems]

    def wants(self, subject: str) -> bool:
        """Whether its durable delivers the subject."""
        return any(matches(pattern, subject) for pattern in self._filters)

    def hear(self, subject: str) -> None:
        """Receives a message on the subjects that workers subscribe to beside their durable."""
        if any(matches(decided, subject) for decided in LOOKED_AT):
            self.hints.add(subject.split(".")[2])

    async def handle(self, delivery: MemoryDelivery) -> None:
        """Handles a delivery. It stays unacknowledged if the process crashes."""
        if self.bus.crash == "ack":
            self.bus.crash = None
            delivery.lose_answer()
        try:
            await self._handle(delivery)
        except ProcessDied:
            return
        finally:
            self.bus.dead = False

    async def _handle(self, delivery: MemoryDelivery) -> None:
        """Handles a delivery as a worker does."""
        answered: asyncio.Future[Prepared | None] = asyncio.get_running_loop().create_future()
        prepared = self.engine.begin(delivery, answered.set_result) or await answered
        if prepared is not None:
            await self.engine.handle(delivery, prepared)


class _NoLeases(Leases):
    """No leases: a World has a single replica."""

    def __init__(self) -> None:
        pass

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        yield


class _WorldsPresence(Presence):
    """Absences are the times during which the World had no coordinator."""

    def __init__(self, bus: MemoryBus) -> None:
        self._memory = bus
        self._absences: tuple[Absence, ...] = ()
        self.since: datetime | None = None

    async def present(self) -> Present:
        return Present(self._memory.now, self._absences)

    def end(self) -> None:
        """Ends an absence: a coordinator is running again."""
        if self.since is not None and self._memory.now - self.since > ABSENT_AFTER:
            self._absences += (Absence(self.since, self._memory.now),)
        self.since = None


class _NoQueues(AgentQueues):
    """No queues: a running agent receives everything at once, and a stopped one is not at work."""

    def __init__(self) -> None:
        pass

    async def of(self, agents: Iterable[str]) -> Queues:
        return {}


class HostedCoordinator:
    """One replica of the coordinator, without its servers."""

    def __init__(self, bus: MemoryBus) -> None:
        self.running = True
        self._bus = bus
        self._presence = _WorldsPresence(bus)
        self.catalog = Catalog(bus)
        self.store = FlowStore(bus, self.catalog)
        self._reconciler = Reconciler(self.store, TimerSchedule(bus), self._presence, _NoQueues())
        self._reconciler.flows.replicated = False
        self.operator_actions = OperatorActions(self.store, self._reconciler)
        self._guard = Guard(Quarantine(bus, self.catalog, reporter=COORDINATOR), Troubles())
        filters = coordinator_filters()
        self._filters = frozenset[str]().union(*filters.values())

    def stop(self) -> None:
        """Stops the replica."""
        self.running, self._presence.since = False, self._presence.since or self._bus.now

    def start(self) -> None:
        """Starts the replica again."""
        self.running = True
        self._presence.end()

    def wants(self, subject: str) -> bool:
        """Whether one of its durables delivers the subject."""
        return any(matches(pattern, subject) for pattern in self._filters)

    async def handle(self, delivery: MemoryDelivery) -> None:
        """Reconciles the flow of a message."""
        await self._guard.run("world", [delivery], self._attend(delivery))

    async def due(self, subject: str) -> None:
        """Reconciles the flow of a timer that fired. A missing flow is not an error."""
        due = parse_due(subject)
        try:
            await self._reconciler.reconcile(due.flow_type, due.flow_id, since=0, at_least=0, now=self._bus.now)
        except HandrailError as error:
            if not is_given_up(error):
                raise

    async def _attend(self, delivery: MemoryDelivery) -> None:
        recorded = envelope.decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        address = recorded.address
        flow = await self._reconciler.reconcile(
            address.flow_type, address.flow_id, since=delivery.sequence, at_least=delivery.sequence, now=self._bus.now
        )
        await self._guard.quarantine_void(delivery, flow)
