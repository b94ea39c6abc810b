"""Sorts the messages of a stream, in which flows are interleaved, into whole flows.

Memory is bounded, however long the stream is: if too much is held, the oldest flows are completed with a read of their
remaining messages, and returned. Their later messages are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from handrail.analysis.replay.stored import Stored
from handrail.mesh.bus import Bus, RawMessage, TooManySubjects
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams import FLOW
from handrail.mesh.waiting import Patience
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import Kind, filter_for, flow_filter

HELD_BYTES = 64 << 20
"""About how much memory the open flows may take."""

TOGETHER = 128
"""Flows per request, if they have eight messages each on average; a request for longer flows is split."""

_OVERHEAD = 400
"""About how many bytes a message takes besides its body."""
_PAUSE = timedelta(seconds=0.05)

Flow = list[Stored]


class Gathering:
    """The open flows of one type that began in the pages taken so far. `newest` is the last message that counts."""

    def __init__(self, bus: Bus, flow_type: str, *, newest: RawMessage, held: int = HELD_BYTES) -> None:
        self._bus = bus
        self._flow_type = flow_type
        self._newest = _stored(newest)
        self._bound = held
        self._held = 0
        self._open: dict[str, Flow] = {}
        self._first = 0
        self._position = 0
        self._given_out = False

    async def take(self, page: Sequence[Stored], *, is_first_ever: bool) -> None:
        """Takes the next messages. Messages of flows that did not begin in the pages taken so far are dropped.

        `is_first_ever` says that the stream has nothing before the first page.
        """
        self._first = self._first or page[0].sequence
        begun = self._sorted(page)
        if self._given_out or not is_first_ever:
            await self._complete(begun, before=page[0])

    def _sorted(self, page: Iterable[Stored]) -> list[str]:
        """Adds each message to its flow; returns the ids of the flows that begin here, or seem to."""
        begun = []
        for stored in page:
            tokens = stored.subject.split(".", 6)
            flow_id = tokens[2]
            flow = self._open.get(flow_id)
            if flow is None:
                if not _may_begin(tokens):
                    continue
                flow = self._open[flow_id] = []
                begun.append(flow_id)
            flow.append(stored)
            self._held += _size(stored)
            self._position = stored.sequence
        return begun

    async def _complete(self, flow_ids: Sequence[str], *, before: Stored) -> None:
        """Adds the earlier messages of each flow that seems to begin here.

        A second first event is void. Its flow began earlier: before the pages taken, or in them, and was then returned
        already.
        """
        for some in _pieces(flow_ids):
            for earlier in await self._read(some, from_sequence=0, up_to=before):
                if earlier.sequence == before.sequence:
                    continue
                tokens = earlier.subject.split(".", 6)
                flow = self._open.get(tokens[2])
                if flow is None:
                    continue
                if earlier.sequence >= self._first and _may_begin(tokens):
                    self._held -= sum(map(_size, self._open.pop(tokens[2])))
                    continue
                flow.append(earlier)
                flow.sort(key=lambda stored: stored.sequence)
                self._held += _size(earlier)

    async def overflow(self) -> list[Flow]:
        """Returns the oldest flows, complete, if more is held than allowed."""
        given: list[Flow] = []
        while self._held > self._bound and self._open:
            self._given_out = True
            oldest = [flow_id for flow_id, _ in zip(self._open, range(TOGETHER), strict=False)]
            flows = {flow_id: self._open.pop(flow_id) for flow_id in oldest}
            self._held -= sum(sum(map(_size, flow)) for flow in flows.values())
            for later in await self._read(oldest, from_sequence=self._position + 1, up_to=self._newest):
                flows[later.subject.split(".", 3)[2]].append(later)
            given += flows.values()
        return given

    async def whole(self, flow_ids: Sequence[str]) -> list[Flow]:
        """Reads flows by their ids, with all messages up to the last that counts. A flow without any is left out."""
        flows: dict[str, Flow] = {flow_id: [] for flow_id in flow_ids}
        for some in _pieces(flow_ids):
            for message in await self._read(some, from_sequence=1, up_to=self._newest):
                flows[message.subject.split(".", 3)[2]].append(message)
        return [flow for flow in flows.values() if flow]

    def rest(self) -> Iterator[Flow]:
        """Yields the flows that are open at the end."""
        flows, self._open, self._held = self._open, {}, 0
        yield from flows.values()

    async def _read(self, flow_ids: Sequence[str], *, from_sequence: int, up_to: Stored) -> list[Stored]:
        """Reads the messages of these flows from a sequence up to a known message, in stream order.

        The read includes the known message: a replica that does not return it lags, and is asked again.
        """
        if from_sequence > up_to.sequence:
            return []
        filters = [*(flow_filter(self._flow_type, flow_id) for flow_id in flow_ids), filter_for(up_to.subject)]
        patience = Patience(READ_TIMEOUT, first=_PAUSE, longest=_PAUSE)
        while True:
            try:
                page = await self._bus.direct_get(
                    FLOW, multi_last=filters, from_seq=from_sequence, up_to_seq=up_to.sequence
                )
            except TooManySubjects:
                return await self._read_apart(flow_ids, from_sequence=from_sequence, up_to=up_to)
            if page.messages and page.messages[-1].sequence == up_to.sequence:
                wanted = set(flow_ids)
                return [_stored(each) for each in page.messages if each.subject.split(".", 3)[2] in wanted]
            if not await patience.wait():
                raise BrokerUnavailable(f"no replica of stream {FLOW} returns sequence {up_to.sequence}")

    async def _read_apart(self, flow_ids: Sequence[str], *, from_sequence: int, up_to: Stored) -> list[Stored]:
        if len(flow_ids) > 1:
            half = len(flow_ids) // 2
            first = await self._read(flow_ids[:half], from_sequence=from_sequence, up_to=up_to)
            return first + await self._read(flow_ids[half:], from_sequence=from_sequence, up_to=up_to)
        only = flow_filter(self._flow_type, flow_ids[0])
        newest = await self._bus.last_on_leader(FLOW, only)
        last = min(up_to.sequence, newest.sequence if newest else 0)
        found: list[Stored] = []
        while from_sequence <= last:
            page = await self._bus.read_forward(FLOW, only, from_sequence=from_sequence, limit=1000)
            found += [_stored(message) for message in page.messages if message.sequence <= last]
            if page.messages:
                from_sequence = page.messages[-1].sequence + 1
            else:
                await asyncio.sleep(_PAUSE.total_seconds())
        return found


def _may_begin(tokens: Sequence[str]) -> bool:
    """Tells whether a subject is that of a flow's first event, from any publisher."""
    return len(tokens) > 5 and tokens[3] == Kind.EVENT and tokens[5] == ids.start_id(tokens[2])


def _size(stored: Stored) -> int:
    return len(stored.body) + _OVERHEAD


def _stored(message: RawMessage) -> Stored:
    return Stored.of(message.subject, message.body, sequence=message.sequence, time=message.time)


def _pieces(flow_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(flow_ids), TOGETHER):
        yield flow_ids[start : start + TOGETHER]
