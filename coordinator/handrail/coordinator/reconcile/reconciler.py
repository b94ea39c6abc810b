"""Reconciles a flow: read, decide, append and read again until `decide` returns None; then set its timers."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from handrail.coordinator.decide import agents_due, decide, messages
from handrail.coordinator.decide.timers import timers
from handrail.coordinator.reconcile.agent_queues import AgentQueues
from handrail.coordinator.reconcile.leases import Leases
from handrail.coordinator.reconcile.presence import Presence, Present
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.mesh import telemetry
from handrail.mesh.errors import TooLarge, WrongSequence
from handrail.mesh.flow import Flow
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import CompensationStarted, FlowHalted, FlowResumed

log = logging.getLogger(__name__)

_MORE_WILL_FOLLOW = frozenset(
    message.DESCRIPTOR.full_name for message in (FlowHalted, FlowResumed, CompensationStarted)
)
"""Decisions that start an intervention of several appends. One append alone needs no lease: the lease would cost two
broker calls and save nothing."""

_REMEMBERED = 512
"""The most flows that a reconciler remembers; one of ten messages takes some 50 kB."""


@dataclass(frozen=True, slots=True)
class _Attended:
    """A flow after its last reconciliation, with the timers set that the messages from `since` on changed."""

    since: int
    flow: Flow


class Reconciler:
    """Reconciles a flow until `decide` returns None. Idempotent; safe to run concurrently on any replica.

    It remembers the flows it reconciled last: a message that was included then needs nothing more, and a later message
    only needs the messages since. This saves work and affects no decision: every append names the sequence it is based
    on.
    """

    def __init__(
        self, store: FlowStore, timer_schedule: TimerSchedule, leases: Leases, presence: Presence, queues: AgentQueues
    ) -> None:
        self._store = store
        self._timer_schedule = timer_schedule
        self._leases = leases
        self._presence = presence
        self._queues = queues
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self._recent: OrderedDict[str, _Attended] = OrderedDict()

    async def reconcile(self, flow_type: str, flow_id: str, *, since: int, at_least: int, now: datetime) -> Flow:
        """Decides what is due at `now` in a flow that holds at least sequence `at_least`, and sets its timers.

        It sets only the timers that messages from `since` on changed, because earlier messages were handled before; 0
        sets all. Raises HandrailError: FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, FLOW_BUSY if another replica holds the flow,
        BROKER_UNAVAILABLE.
        """
        async with self.turn(flow_id):
            recent = self._recent.get(flow_id)
            if recent is not None and 0 < recent.since <= since and at_least <= recent.flow.last_sequence:
                return recent.flow
            if recent is not None and (since > recent.flow.last_sequence or not since):
                before = timers(recent.flow) if since else {}
                flow = await self._store.catch_up(recent.flow, at_least=at_least)
            else:
                flow, before = await self._read(flow_type, flow_id, since, at_least)
            return await self.settle(flow, now, before=before, since=since)

    def forget(self) -> None:
        """Forgets all flows, because the stream was replaced."""
        self._recent.clear()

    async def settle(self, flow: Flow, now: datetime, *, before: Mapping[str, datetime], since: int) -> Flow:
        """Decides until nothing is due, then replaces the timers in `before` by those needed.

        `before` are the timers that the flow needed without the messages from `since` on.
        """
        self._recent.pop(flow.flow_id, None)
        present = await self._presence.present()
        # The message may have waited: more time has passed than its timestamp says.
        now = max(now, present.time)
        flow, overtaken = await self._decide(flow, Present(now, present.absences))
        # A timer that is due and led to nothing waits for something else and is dropped; if a decision was overtaken by
        # another message, it is kept to try again.
        after = {name: due for name, due in timers(flow).items() if due > now or overtaken}
        await self._timer_schedule.change(
            flow.flow_type, flow.flow_id, before=before, after=after, last_sequence=flow.last_sequence
        )
        if not overtaken:
            self._recent[flow.flow_id] = _Attended(since, flow)
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return flow

    async def _read(self, flow_type: str, flow_id: str, since: int, at_least: int) -> tuple[Flow, dict[str, datetime]]:
        """Reads the flow, and computes the timers it needed before the messages from `since` on."""
        history = await self._store.read(flow_type, flow_id, at_least=at_least)
        earlier, flow = await self._store.fold_in_two(flow_type, flow_id, history, since=since)
        return flow, timers(earlier) if earlier is not None else {}

    async def _decide(self, flow: Flow, present: Present) -> tuple[Flow, bool]:
        entry = await self._next(flow, present)
        if entry is None:
            return flow, False
        if entry.address.message_type not in _MORE_WILL_FOLLOW:
            return await self._append_all(flow, entry, present)
        async with self._leases.hold(f"flow.{flow.flow_type}.{flow.flow_id}"):
            return await self._append_all(flow, entry, present)

    async def append(self, flow: Flow, entry: Entry) -> tuple[int, Flow]:
        """Appends one message and reads the flow again; raises WrongSequence if the flow moved on."""
        with telemetry.span(
            "decide", flow_id=flow.flow_id, parent=flow.last_span_id, decision=entry.address.message_type
        ):
            # A released proposal has exactly the bytes that were proposed.
            if entry.address.kind is not Kind.RELEASED:
                entry.event.span_id = telemetry.current_span_id()
            sequence = await self._store_entry(flow, entry)
        log.info(
            "flow %s: recorded %s %s at %d", flow.flow_id, entry.address.kind, entry.address.message_type, sequence
        )
        return sequence, await self._store.catch_up(flow, at_least=sequence)

    async def _store_entry(self, flow: Flow, entry: Entry) -> int:
        """Appends a message. If the broker calls it too large, it appends a smaller one: a command without the data it
        repeats, or a halt that asks a person to look.
        """
        try:
            return await self._store.append(flow, entry)
        except TooLarge as error:
            log.error("flow %s: %s", flow.flow_id, error.text)
            smaller = messages.smaller(flow, entry, error, datetime.now(UTC))
            if smaller is None:
                raise
            return await self._store.append(flow, smaller)

    async def _append_all(self, flow: Flow, entry: Entry | None, present: Present) -> tuple[Flow, bool]:
        while entry is not None:
            try:
                sequence, flow = await self.append(flow, entry)
            except WrongSequence as error:
                flow = await self._store.catch_up(flow, at_least=error.last_sequence or 0)
            else:
                void = flow.void.get(sequence)
                if void is not None:
                    what = entry.address.message_type
                    log.info("flow %s: %s at %d is void: %s", flow.flow_id, what, sequence, void.text)
                    return flow, True
            entry = await self._next(flow, present)
        return flow, False

    async def _next(self, flow: Flow, present: Present) -> Entry | None:
        """Looks at the queues of the agents with due attempts, then asks `decide`."""
        queues = await self._queues.of(agents_due(flow, present.time))
        return decide(flow, present.time, present.absences, queues)

    @asynccontextmanager
    async def turn(self, flow_id: str) -> AsyncIterator[None]:
        """Serializes work per flow within this process: concurrent work would only void each other's decisions."""
        lock, users = self._turns.get(flow_id, (asyncio.Lock(), 0))
        self._turns[flow_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(flow_id)
            if users > 1:
                self._turns[flow_id] = (lock, users - 1)
