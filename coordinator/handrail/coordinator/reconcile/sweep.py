"""The sweep finds flows that every other mechanism missed: open flows that nobody looks at (anti-entropy).

It looks at the flows of timers that are long overdue, and at the open flows that the index has: once after each last
message, when that is two minutes old. While a flow goes on, whoever is handed its messages looks at it.

Without an index, or with one that does not answer, is behind or is of another stream, it walks over the new messages of
FLOW instead. Since an index may lack a flow, it walks with an index, too, once an hour. A walk leaves out messages of
flows that this replica folded completely and found closed. It folds the others, and reconciles every flow that is not
closed. It walks over the whole stream only if it has no mark (the first time), or if streams were restored or
recreated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from handrail.analysis.replay.stored import Stored, decode
from handrail.coordinator.lists.index import Index, Unavailable
from handrail.coordinator.reconcile.attendant import LOOP, Attendant, Found
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.open_flows import OpenFlows
from handrail.coordinator.reconcile.overdue import Overdue
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.sweep_marks import Mark, Streams, read_mark, read_streams, write_mark
from handrail.coordinator.reconcile.sweep_walk import LAG, LATE, SweepWalk
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.fold import is_final
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History
from handrail.mesh.streams.leases import Leases
from handrail.mesh.waiting import pause
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import parse
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

DEFAULT_INTERVAL = timedelta(minutes=1)

WALKS_EVERY = timedelta(hours=1)
"""How old messages get before they are walked over although the index answers."""

_LEFT_AT_MOST = 1000
"""The most failed flows that are remembered; with more of them the sweep does not advance."""


class Sweep:
    """Looks for missed flows, on one replica at a time."""

    def __init__(
        self,
        bus: NatsBus,
        store: FlowStore,
        reconciler: Reconciler,
        leases: Leases,
        troubles: Troubles,
        *,
        finished: Finished,
        index: Index,
        interval: timedelta = DEFAULT_INTERVAL,
        lag: timedelta = LAG,
        everything: bool = False,
    ) -> None:
        self._bus = bus
        self._store = store
        self._flows = reconciler.flows
        self._leases = leases
        self._troubles = troubles
        self._finished = finished
        self._interval = interval
        self._everything = everything
        self._overdue = Overdue(bus)
        self._walk = SweepWalk(bus, finished, lag=lag)
        self._pace = self._walk.pace
        self._open_flows = OpenFlows(bus, index)
        self._attendant = Attendant(reconciler, troubles, self._pace)
        self._mark = Mark()
        self._written = Mark()
        self._timers_at_least = 0
        self._left: set[Found] = set()
        self._looks_again_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweeps at each interval until `stopping` is set."""
        while not stopping.is_set():
            await pause(stopping, self._interval)
            if stopping.is_set():
                return
            try:
                async with self._leases.hold("duty.sweep"):
                    await self.sweep()
            except HandrailError as error:
                if error.reason != ErrorReason.ERROR_REASON_FLOW_BUSY:
                    raise
                log.debug("this sweep is skipped: %s", error.text)
            self._troubles.succeeded(LOOP)

    async def sweep(self) -> int:
        """Reconciles every flow that may have been missed; returns how many those were.

        A flow that fails is left to the next sweep. Raises BROKER_UNAVAILABLE.
        """
        before = self._attendant.attended
        self._written = mark = await read_mark(self._bus)
        streams = await read_streams(self._bus)
        why = "it was requested" if self._everything else streams.why_not_behind(mark)
        if why and streams.flow_sequence:
            log.info("sweeping all flows: %s", why)
            if mark.flow_created:
                self._flows.forget()
                self._finished.clear()
        self._timers_at_least = streams.timer_sequence
        self._left = set(mark.left)
        self._mark = _of(streams) if why else replace(_of(streams), sequence=mark.sequence, seen=mark.seen)
        self._looks_again_at = 0.0
        await self._look_again()
        if why:
            await self._walk_on(after=0, late=LATE)
        elif not await self._look_at_open_flows(streams):
            await self._walk_on(after=max(self._mark.sequence, self._mark.seen), late=LATE, instead_of=streams)
        if self._mark.sequence < self._mark.seen and await self._is_walk_due():
            await self._walk_on(after=self._mark.sequence, late=WALKS_EVERY + LATE, beside=streams)
        return self._attendant.attended - before

    async def _look_at_open_flows(self, streams: Streams) -> bool:
        """Attends to the open flows of the index; tells whether it had all that a walk would look at."""
        if not self._open_flows.is_there:
            return False
        after = max(self._mark.sequence, self._mark.seen)
        up_to = max(after, await self._walk.end())
        await self._walk.set_pace(after=after, late=LATE)
        try:
            async for listed in self._open_flows.pages(stream_created=streams.flow_begun, after=after, up_to=up_to):
                await self._look_again()
                self._left |= await self._attend(listed.flows)
                await self._note(replace(self._mark, seen=listed.up_to))
                await self._walk.set_pace(after=listed.up_to, late=LATE)
        except Unavailable as error:
            log.info("the sweep walks over new messages: %s", error.why)
            return False
        return True

    async def _is_walk_due(self) -> bool:
        """Tells whether messages that were not walked over are an hour old."""
        return self._mark.sequence < await self._walk.end(ago=WALKS_EVERY)

    async def _walk_on(
        self, *, after: int, late: timedelta, beside: Streams | None = None, instead_of: Streams | None = None
    ) -> None:
        """Walks from `after` on to the end. A walk `beside` the index ends once the index does not answer any more, and
        one `instead_of` the index once it answers again.
        """
        is_next = after <= self._mark.sequence
        async for window in self._walk.windows(after=after, late=late):
            await self._look_at(window.messages)
            seen = max(self._mark.seen, window.up_to)
            await self._note(replace(self._mark, sequence=window.up_to if is_next else self._mark.sequence, seen=seen))
            self._everything = False
            if beside is not None and not await self._look_at_open_flows(beside):
                return
            if instead_of is not None and await self._look_at_open_flows(instead_of):
                return

    async def _note(self, mark: Mark) -> None:
        """Goes on from this mark. Raises INTERNAL if too many flows are left behind it."""
        if len(self._left) > _LEFT_AT_MOST:
            raise HandrailError(
                ErrorReason.ERROR_REASON_INTERNAL,
                f"more than {_LEFT_AT_MOST} flows can't be reconciled: the sweep waits at sequence {self._mark.seen}",
            )
        self._mark = replace(mark, left=tuple(sorted(self._left)))
        if self._mark != self._written:
            await write_mark(self._bus, self._mark)
            self._written = self._mark

    async def _look_again(self) -> None:
        """Attends to overdue timers and to flows that were left, once an interval: a walk may take longer."""
        now = asyncio.get_running_loop().time()
        if now < self._looks_again_at:
            return
        self._looks_again_at = now + self._interval.total_seconds()
        overdue = await self._overdue.flows()
        self._pace.resume()
        await self._attend((*key, sequence) for key, sequence in overdue.items())
        self._left = await self._attend(self._left)

    async def _look_at(self, window: Iterable[Stored]) -> None:
        """Reconciles the open flows of a window."""
        await self._look_again()
        flows: dict[tuple[str, str], list[Stored]] = defaultdict(list)
        self._pace.resume()
        for stored in window:
            await self._pace.keep()
            try:
                address = parse(stored.subject)
            except HandrailError:
                continue  # `track` or `decide` has quarantined it
            flows[address.flow_type, address.flow_id].append(stored)
        for key, messages in flows.items():
            await self._look_again()
            self._pace.resume()
            is_over = await self._is_over(messages)
            await self._pace.keep()
            if not is_over:
                self._left |= await self._attend([(*key, messages[-1].sequence)])

    async def _is_over(self, messages: Sequence[Stored]) -> bool:
        """Tells whether these messages are a complete flow that is closed."""
        try:
            history = [decode(stored) for stored in messages]
            first = history[0]
            if first.event_id != ids.start_id(first.event.flow_id):
                return False
            flow = await self._store.fold(first.address.flow_type, first.address.flow_id, History(history))
        except Exception as error:
            # The error appears again, and is reported, when the flow is reconciled.
            log.debug("flow of %s can't be folded in the sweep: %s", messages[0].subject, error)
            return False
        return is_final(flow)

    async def _attend(self, flows: Iterable[Found]) -> set[Found]:
        return await self._attendant.attend(flows, timers_at_least=self._timers_at_least)


def _of(streams: Streams) -> Mark:
    """The mark of a sweep that has looked at nothing of these streams."""
    return Mark(
        flow_created=streams.flow_created,
        timer_created=streams.timer_created,
        timer_sequence=streams.timer_sequence,
    )
