"""Attending to a flow: read it, decide, append, read again, until nothing is left; then arm and clear its timers."""

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
"""Decisions that begin an intervention of several appends. One of a single message needs no lease: it would cost two
broker calls to save nothing."""

_REMEMBERED = 512
"""Flows that an reconciler remembers; one of ten messages takes some 50 kB."""


@dataclass(frozen=True, slots=True)
class _Attended:
    """A flow as it was left, with the timers set that the messages from `since` on changed."""

    since: int
    flow: Flow


class Reconciler:
    """Brings a flow to where nothing is left to decide. Safe to run on any replica, at any time, twice.

    It remembers the flows it attended to last: a message that was there then needs nothing more, and a later one only
    what came since. That saves work and decides nothing: every append names the sequence it is based on.
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
        """Decide what is due at `now` in a flow that holds at least sequence `at_least`, and set its timers.

        Only timers that the messages from `since` on changed: earlier ones had their own handling; 0 sets all. Raises
        HandrailError: FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, FLOW_BUSY where another replica holds the flow,
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
        """Drop what is remembered: the stream is not the one that it was."""
        self._recent.clear()

    async def settle(self, flow: Flow, now: datetime, *, before: Mapping[str, datetime], since: int) -> Flow:
        """Decide until nothing is due, then turn the timers `before` the messages from `since` on into those wanted."""
        self._recent.pop(flow.flow_id, None)
        present = await self._presence.present()
        # A message that waited says when it was stored, and more time has passed since.
        now = max(now, present.time)
        flow, overtaken = await self._decide(flow, Present(now, present.absences))
        # What is due already and led to nothing waits for something else; unless a decision was overtaken: then it is
        # tried again.
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
        """The flow, and the timers it wanted before the messages from `since` on."""
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
        """Append one message and read the flow again; WrongSequence if it moved on."""
        with telemetry.span(
            "decide", flow_id=flow.flow_id, parent=flow.last_span_id, decision=entry.address.message_type
        ):
            # A released proposal has the very bytes that were proposed.
            if entry.address.kind is not Kind.RELEASED:
                entry.event.span_id = telemetry.current_span_id()
            sequence = await self._store_entry(flow, entry)
        log.info(
            "flow %s: recorded %s %s at %d", flow.flow_id, entry.address.kind, entry.address.message_type, sequence
        )
        return sequence, await self._store.catch_up(flow, at_least=sequence)

    async def _store_entry(self, flow: Flow, entry: Entry) -> int:
        """Append a message, or where the broker calls it too large what says the same in less: a command without the
        data that it repeats, and in place of anything else a halt that has a person look.
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
        """What `decide` says, once the queues are looked at in which something may wait that is due."""
        queues = await self._queues.of(agents_due(flow, present.time))
        return decide(flow, present.time, present.absences, queues)

    @asynccontextmanager
    async def turn(self, flow_id: str) -> AsyncIterator[None]:
        """One at a time per flow within this process: two would only void each other's work."""
        lock, users = self._turns.get(flow_id, (asyncio.Lock(), 0))
        self._turns[flow_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(flow_id)
            if users > 1:
                self._turns[flow_id] = (lock, users - 1)
