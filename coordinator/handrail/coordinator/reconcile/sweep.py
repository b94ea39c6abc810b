"""The sweep finds flows that every other mechanism missed: open flows that nobody looks at (anti-entropy).

It looks at the flows of timers that are long overdue, and walks over the new messages of the stream, two minutes behind
its end. It does not read messages of flows that this replica folded completely and found closed. It folds the others,
and reconciles every flow that is not closed. It walks over the whole stream only if it has no mark (the first time), or
if streams were restored or recreated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from handrail.analysis.replay.stored import Stored, decode
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.overdue import Overdue
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import is_given_up
from handrail.coordinator.reconcile.sweep_marks import Mark, Streams, read_mark, read_streams, write_mark
from handrail.coordinator.reconcile.sweep_walk import LAG, SweepWalk
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

_RECONCILING = timedelta(milliseconds=1)
"""What a flow takes that is read and reconciled."""

_LEFT_AT_MOST = 1000
"""The most failed flows that are remembered; with more of them the sweep does not advance."""

_LOOP = "sweep"

_Left = tuple[str, str, int]
"""A flow that could not be reconciled: its type, its id, and its newest sequence."""


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
        interval: timedelta = DEFAULT_INTERVAL,
        lag: timedelta = LAG,
        everything: bool = False,
    ) -> None:
        self._bus = bus
        self._store = store
        self._reconciler = reconciler
        self._leases = leases
        self._troubles = troubles
        self._finished = finished
        self._interval = interval
        self._everything = everything
        self._overdue = Overdue(bus)
        self._walk = SweepWalk(bus, finished, lag=lag)
        self._pace = self._walk.pace
        self._attended = 0
        self._left: set[_Left] = set()
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
            self._troubles.succeeded(_LOOP)

    async def sweep(self) -> int:
        """Reconciles every flow that may have been missed; returns how many those were.

        A flow that fails is left to the next sweep. Raises BROKER_UNAVAILABLE.
        """
        self._attended = 0
        mark = await read_mark(self._bus)
        streams = await read_streams(self._bus)
        why = "it was requested" if self._everything else streams.why_not_behind(mark)
        if why and streams.flow_sequence:
            log.info("sweeping all flows: %s", why)
            if mark.flow_created:
                self._reconciler.flows.forget()
                self._finished.clear()
        self._left = set(mark.left)
        self._looks_again_at = 0.0
        await self._look_again()
        sequence = 0 if why else mark.sequence
        async for window in self._walk.windows(after=sequence):
            await self._look_at(window.messages)
            if len(self._left) > _LEFT_AT_MOST:
                raise HandrailError(
                    ErrorReason.ERROR_REASON_INTERNAL,
                    f"more than {_LEFT_AT_MOST} flows can't be reconciled: the sweep waits at sequence {sequence}",
                )
            sequence = window.up_to
            after = _marked(streams, sequence, self._left)
            if after != mark:
                await write_mark(self._bus, after)
                mark = after
            self._everything = False
        return self._attended

    async def _look_again(self) -> None:
        """Attends to overdue timers and to flows that were left, once an interval: a walk may take longer."""
        now = asyncio.get_running_loop().time()
        if now < self._looks_again_at:
            return
        self._looks_again_at = now + self._interval.total_seconds()
        overdue = await self._overdue.flows()
        self._pace.resume()
        await self._attend_all((*key, sequence) for key, sequence in overdue.items())
        self._left = await self._attend_all(self._left)

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
                self._left |= await self._attend_all([(*key, messages[-1].sequence)])

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

    async def _attend_all(self, flows: Iterable[_Left]) -> set[_Left]:
        left = set()
        for flow_type, flow_id, sequence in flows:
            if not await self._attend(flow_type, flow_id, sequence):
                left.add((flow_type, flow_id, sequence))
            self._pace.resume()
            await self._pace.keep(_RECONCILING)
        return left

    async def _attend(self, flow_type: str, flow_id: str, at_least: int) -> bool:
        self._attended += 1
        try:
            await self._reconciler.reconcile(flow_type, flow_id, since=0, at_least=at_least, now=datetime.now(UTC))
        except HandrailError as error:
            if is_given_up(error):
                return True
            self._troubles.failed(_LOOP, flow_id, error)
            return False
        except Exception as error:
            self._troubles.failed(_LOOP, flow_id, error)
            return False
        self._troubles.succeeded(_LOOP, flow_id)
        return True


def _marked(streams: Streams, sequence: int, left: Iterable[_Left]) -> Mark:
    return Mark(
        sequence=sequence,
        flow_created=streams.flow_created,
        timer_created=streams.timer_created,
        timer_sequence=streams.timer_sequence,
        left=tuple(sorted(left)),
    )
