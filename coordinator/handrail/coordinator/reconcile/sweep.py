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
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from handrail.analysis.replay.stored import Stored, decode
from handrail.coordinator.lists.bulk_read import scan
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.leases import Leases
from handrail.coordinator.reconcile.overdue import Overdue
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import is_given_up
from handrail.coordinator.reconcile.sweep_marks import Mark, last_before, read_mark, read_streams, write_mark
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.fold import is_final
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History
from handrail.mesh.waiting import pause
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import parse
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

DEFAULT_INTERVAL = timedelta(minutes=1)

LAG = timedelta(minutes=2)
"""How far the sweep stays behind the end of the stream. `track`, `decide` and `due` handle younger messages; and the
broker syncs to disk every two minutes, so messages that a power failure removes are walked over again."""

_WINDOW = 20_000
"""Messages per window: most flows are complete within one."""

_SHARE = 0.05
"""How much of a core it takes: it leaves the rest, and the broker, to the flows that go on."""

_LATE = timedelta(minutes=10)
_SHARE_IF_LATE = 0.2
"""How much it takes while it is so much further behind."""

_PAGE = 100
_READING = timedelta(microseconds=8)
"""What the connection takes for a message."""

_RECONCILING = timedelta(milliseconds=1)
"""What a flow takes that is read and reconciled."""

_JUMP = 2000
"""It passes by so many messages of closed flows, rather than to read them too."""

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
        self._lag = lag
        self._everything = everything
        self._overdue = Overdue(bus)
        self._pace = Pace(share=_SHARE)
        self._attended = 0

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
        self._pace.resume()
        await self._attend_all((*key, sequence) for key, sequence in (await self._overdue.flows()).items())
        mark = await read_mark(self._bus)
        streams = await read_streams(self._bus)
        why = "it was requested" if self._everything else streams.why_not_behind(mark)
        if why and streams.flow_sequence:
            log.info("sweeping all flows: %s", why)
            if mark.flow_created:
                self._finished.clear()
        left = await self._attend_all(mark.left)
        sequence = 0 if why else mark.sequence
        up_to = await self._last_before(self._lag)
        async for window in self._windows(sequence, up_to):
            left |= await self._look_at(window)
            if len(left) > _LEFT_AT_MOST:
                raise HandrailError(
                    ErrorReason.ERROR_REASON_INTERNAL,
                    f"more than {_LEFT_AT_MOST} flows can't be reconciled: the sweep waits at sequence {sequence}",
                )
            sequence = window[-1].sequence
            if not why:
                await write_mark(self._bus, _marked(mark, sequence, left))
        self._everything = False
        after = Mark(
            sequence=max(sequence, up_to),
            flow_created=streams.flow_created,
            timer_created=streams.timer_created,
            timer_sequence=streams.timer_sequence,
            left=tuple(sorted(left)),
        )
        if after != mark:
            await write_mark(self._bus, after)
        return self._attended

    async def _last_before(self, ago: timedelta) -> int:
        return await last_before(self._bus, datetime.now(UTC) - ago)

    async def _windows(self, after: int, up_to: int) -> AsyncIterator[list[Stored]]:
        """Yields the messages between two sequences, in stream order, but for most of those of finished flows."""
        window: list[Stored] = []
        while (first := self._finished.first_other(after)) <= up_to:
            is_late = first <= await self._last_before(self._lag + _LATE)
            self._pace.share = _SHARE_IF_LATE if is_late else _SHARE
            async with scan(self._bus, FLOW, "flow.>", after=first - 1, page=_PAGE) as scanning:
                async for page in scanning.pages():
                    self._pace.resume()
                    after = page[-1].sequence
                    window += [each for each in page if each.sequence <= up_to and each.sequence not in self._finished]
                    await self._pace.keep(len(page) * _READING)
                    if len(window) >= _WINDOW or after >= up_to or self._finished.first_other(after) > after + _JUMP:
                        break
                else:
                    after = up_to  # nothing is left there
            if len(window) >= _WINDOW:
                yield window
                window = []
        if window:
            yield window

    async def _look_at(self, window: Iterable[Stored]) -> set[_Left]:
        """Reconciles the open flows of a window; returns those that failed."""
        flows: dict[tuple[str, str], list[Stored]] = defaultdict(list)
        self._pace.resume()
        for stored in window:
            await self._pace.keep()
            try:
                address = parse(stored.subject)
            except HandrailError:
                continue  # `track` or `decide` has quarantined it
            flows[address.flow_type, address.flow_id].append(stored)
        missed: list[_Left] = []
        for key, messages in flows.items():
            if not await self._is_over(messages):
                missed.append((*key, messages[-1].sequence))
            await self._pace.keep()
        return await self._attend_all(missed)

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


def _marked(mark: Mark, sequence: int, left: Iterable[_Left]) -> Mark:
    return replace(mark, sequence=sequence, left=tuple(sorted(left)))
