"""Refunds that pass through: as many are open at any time, and the messages of each are spread over its time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import count
from random import Random

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import key_subject
from tests.support.recorded_refunds import Build, history

_IN_FLIGHT = 1_000


@dataclass(slots=True)
class _Refund:
    """Its messages, and the sequence of the one that was stored last."""

    messages: list[Build]
    key_hash: str = ""
    sequence: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Passing:
    """Stores the messages of refunds, as their agents would. With `keyed`, each begins with a key, which KEY records.

    The first of `open_at_once` refunds ends when as many have begun.
    """

    def __init__(self, bus: NatsBus, *, open_at_once: int, keyed: bool) -> None:
        self._bus = bus
        self._open_at_once = open_at_once
        self._keyed = keyed
        self._draw = Random(1)
        self._open: dict[int, _Refund] = {}
        self._order = self._messages()
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)
        self._failed: HandrailError | None = None
        self.begun = 0
        self.stored = 0
        self.unfinished = 0
        """How many messages the refunds have that have not ended."""

    async def begin(self) -> None:
        """Begins the refunds that are open at once, as fast as it goes."""
        while self.begun < self._open_at_once:
            await self._next()
        await self._settle()

    async def go_on(self, *, events: int, rate: float) -> None:
        """Stores so many more messages, at most `rate` of them in a second."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        for number in range(events):
            await asyncio.sleep(max(0, begun + number / rate - clock()))
            await self._next()
        await self._settle()

    async def finish(self) -> None:
        """Ends the refunds that are open, as fast as it goes, and begins none."""
        left, self._open_at_once = self.begun, 0
        for number, nth in self._order:
            if number >= left:
                break
            await self._store(number, nth)
        await self._settle()

    def _messages(self) -> Iterator[tuple[int, int]]:
        """The numbers of refunds and of their messages, in the order in which they are stored."""
        waiting: list[tuple[float, int, int]] = []
        for number in count():
            while waiting and (waiting[0][0] <= number or not self._open_at_once):
                _, *message = heappop(waiting)
                yield message[0], message[1]
            refund = self._begun(number)
            self._open[number] = refund
            step = self._open_at_once / (len(refund.messages) - 1)
            for nth in range(1, len(refund.messages)):
                heappush(waiting, (number + nth * step, number, nth))
            yield number, 0

    def _begun(self, number: int) -> _Refund:
        key = f"refund-{number}"
        if self._keyed:
            return _Refund(history(key, self._draw), ids.key_hash("refund", key))
        return _Refund(history(key, self._draw, flow_id=ids.new_flow_id(datetime.now(UTC), os.urandom(10))))

    async def _next(self) -> None:
        number, nth = next(self._order)
        await self._store(number, nth)

    async def _store(self, number: int, nth: int) -> None:
        refund = self._open[number]
        entry = refund.messages[nth](await refund.sequence if nth else 0)
        if not nth:
            self.begun += 1
            if refund.key_hash:
                entry.event.key_hash = refund.key_hash
                subject = key_subject(entry.event.flow_type, refund.key_hash)
                await self._bus.publish(subject, entry.event.flow_id.encode())
        refund.sequence = asyncio.get_running_loop().create_future()
        self.stored += 1
        self.unfinished += 1
        if nth == len(refund.messages) - 1:
            del self._open[number]
            self.unfinished -= len(refund.messages)
        await self._in_flight.acquire()
        self._bus.publish_nowait(entry.address.subject, entry.body, lambda outcome: self._stored(refund, outcome))

    def _stored(self, refund: _Refund, outcome: int | HandrailError) -> None:
        self._in_flight.release()
        if isinstance(outcome, HandrailError):
            self._failed = outcome
            refund.sequence.set_exception(outcome)
        else:
            refund.sequence.set_result(outcome)

    async def _settle(self) -> None:
        for _ in range(_IN_FLIGHT):
            await self._in_flight.acquire()
        for _ in range(_IN_FLIGHT):
            self._in_flight.release()
        if self._failed is not None:
            raise self._failed
