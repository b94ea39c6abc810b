"""Replicas of the coordinator in memory; a `Stage` determines the order of their broker calls.

The broker is the one of `handrail.testing`, which handles each call at once. Here a call waits for its turn, so that
every order of the calls of several replicas can be tried. No real server can do that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from handrail.coordinator.reconcile.agent_queues import AgentQueues
from handrail.coordinator.reconcile.consuming import AtOnce
from handrail.coordinator.reconcile.decide_consumer import DecideConsumer
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.lag import Lag
from handrail.coordinator.reconcile.operator_actions import OperatorActions
from handrail.coordinator.reconcile.presence import Presence, Present
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus import Page, RawMessage
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.bus.expectation import expecting
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT
from handrail.mesh.errors import WrongSequence
from handrail.mesh.flow.queue import Queues
from handrail.mesh.permissions import matches
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK, coordinator_filters
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.testing.memory import MemoryBus, MemoryDelivery
from tests.support.interleaving import Stage


class SteppedBus(MemoryBus):
    """A broker in memory. While a stage is set, each call by an actor waits for its turn.

    `replicated`: as on several servers, the leader compares an expected sequence before the message is replicated, so
    another message may be stored in between, unless it expects something on the same filter.
    """

    def __init__(self, now: datetime, *, replicated: bool = False) -> None:
        super().__init__(now)
        self.stage: Stage | None = None
        self.replicated = replicated
        self._in_progress: set[str] = set()
        self.slips_in: list[Entry] = []
        """Messages that are stored before the next decision, after the leader compared its expected sequence."""
        self.reads = 0

    async def _step(self) -> None:
        if self.stage is not None:
            await self.stage.step()

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
        await self._step()
        if self.replicated and expected_filter is not None:
            return await self._replicate(subject, body, expected_sequence, expected_filter, headers)
        return await super().publish(
            subject, body, expected_sequence=expected_sequence, expected_filter=expected_filter, headers=headers
        )

    async def _replicate(
        self,
        subject: str,
        body: bytes,
        expected_sequence: int | None,
        expected_filter: str,
        headers: Mapping[str, str] | None,
    ) -> int:
        matching = self.matching(FLOW, expected_filter)
        last = matching[-1].sequence if matching else 0
        if last != expected_sequence or expected_filter in self._in_progress:
            raise WrongSequence(subject, last)
        self._in_progress.add(expected_filter)
        try:
            await self._step()
            while self.slips_in:
                entry = self.slips_in.pop(0)
                await super().publish(entry.address.subject, entry.body)
            return await super().publish(subject, body, headers=expecting(headers, expected_sequence, expected_filter))
        finally:
            self._in_progress.discard(expected_filter)

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        self.reads += 1
        await self._step()
        return await super().direct_get(stream, multi_last=multi_last, from_seq=from_seq, up_to_seq=up_to_seq)

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        await self._step()
        return await super().request_json(api_subject, payload)

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        await self._step()
        matching = self.matching(stream, subject_filter)
        return matching[-1] if matching else None


class AlwaysThere(Presence):
    """Presence without any absence."""

    def __init__(self, bus: SteppedBus) -> None:
        self._stepped = bus

    async def present(self) -> Present:
        """The present time, and no absences."""
        return Present(self._stepped.now)


class NothingQueued(AgentQueues):
    """Queues in which everything due was delivered long ago."""

    async def of(self, agents: Iterable[str]) -> Queues:
        """No information about any agent."""
        return {}


class SteppedReplica:
    """The parts of a replica that handle messages and people's requests."""

    def __init__(self, bus: SteppedBus, catalog: Catalog) -> None:
        self.store = FlowStore(bus, catalog)
        self.troubles = Troubles()
        self.reconciler = Reconciler(self.store, TimerSchedule(bus), AlwaysThere(bus), NothingQueued(bus))
        self.reconciler.flows.replicated = bus.replicated
        self.operator_actions = OperatorActions(self.store, self.reconciler)
        self.quarantine = Quarantine(bus, catalog, reporter=COORDINATOR)
        self.guard = Guard(self.quarantine, self.troubles)
        self.finished = Finished()
        self.lag = Lag(self.store, self.reconciler, self.guard, self.troubles, self.finished)
        self.at_once = AtOnce()
        self._deciding = DecideConsumer(self.reconciler, self.guard, self.lag, self.at_once)

    async def decide(self, delivery: MemoryDelivery) -> None:
        """Handles a delivery of `decide`, and sets the timers of its flow."""
        await self.attend(delivery)
        await self.lag.flush()

    async def attend(self, delivery: MemoryDelivery) -> None:
        """Decides on a delivery of `decide`. Timers and ack wait for a flush of the lag."""
        self._deciding.take(DECIDE, delivery)
        await self.at_once.finish()

    async def track(self, deliveries: Iterable[MemoryDelivery]) -> None:
        """Handles deliveries of `track` that came close together."""
        for delivery in deliveries:
            self.lag.take(TRACK, delivery)
        await self.lag.flush()


class Durables:
    """The durables `decide` and `track`, with their undelivered messages."""

    def __init__(self, bus: SteppedBus) -> None:
        self._bus = bus
        self._settled: dict[str, set[int]] = {DECIDE: set(), TRACK: set()}
        self._out: dict[str, set[int]] = {DECIDE: set(), TRACK: set()}
        self._delivered: dict[tuple[str, int], int] = {}

    def take(self, durable: str) -> list[MemoryDelivery]:
        """Delivers everything that is not delivered yet, in stream order."""
        return [self._hand_out(durable, message) for message in self._left(durable)]

    def hand_out_again(self) -> None:
        """Ends the ack wait: unacknowledged messages will be delivered again."""
        for out in self._out.values():
            out.clear()

    @property
    def idle(self) -> bool:
        """Whether everything is acknowledged."""
        return all(len(self._settled[name]) == len(self._matching(name)) for name in self._settled)

    def _matching(self, durable: str) -> list[RawMessage]:
        return [each for each in self._bus.messages[FLOW] if _delivers(durable, each.subject)]

    def _left(self, durable: str) -> list[RawMessage]:
        gone = self._settled[durable] | self._out[durable]
        return [message for message in self._matching(durable) if message.sequence not in gone]

    def _hand_out(self, durable: str, message: RawMessage) -> MemoryDelivery:
        def on_settled(delay: timedelta | None) -> None:
            self._out[durable].discard(message.sequence)
            if delay is None:
                self._settled[durable].add(message.sequence)

        self._out[durable].add(message.sequence)
        key = (durable, message.sequence)
        self._delivered[key] = self._delivered.get(key, 0) + 1
        return MemoryDelivery(message, self._delivered[key], on_settled)


@lru_cache(10_000)
def _delivers(durable: str, subject: str) -> bool:
    return any(matches(each, subject) for each in coordinator_filters()[durable])
