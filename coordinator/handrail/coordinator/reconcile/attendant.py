"""Reconciles the flows that the sweep finds: a few at a time, and with a share of a core.

What a flow takes is measured: the CPU of this thread while its coroutine runs, without what others do while it waits.
What the connection and the tasks that set timers take for it is added as a constant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from datetime import UTC, datetime, timedelta
from types import coroutine
from typing import Any, TypeVar

from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import is_given_up
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.errors import HandrailError

LOOP = "sweep"

_AT_ONCE = 4
"""Flows that are reconciled at the same time: their reads overlap. Then the sweep rests."""

_ELSEWHERE = timedelta(microseconds=450)
"""What a flow takes in the connection, and in the tasks that set its timers."""

Found = tuple[str, str, int]
"""A flow to look at: its type, its id, and a sequence that it has at least."""

Result = TypeVar("Result")


class Meter:
    """Adds up the CPU that coroutines take themselves, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self.spent = 0.0

    async def measured(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Awaits `work`; what other tasks do while it waits does not count."""
        return await self._steps(work)

    @coroutine
    def _steps(self, work: Coroutine[Any, Any, Result]) -> Generator[Any, Any, Result]:
        raised: BaseException | None = None
        while True:
            began = self._clock()
            try:
                waits_for = work.send(None) if raised is None else work.throw(raised)
            except StopIteration as done:
                result: Result = done.value
                return result
            finally:
                self.spent += self._clock() - began
            try:
                yield waits_for
                raised = None
            except BaseException as error:  # a cancellation, which is for the work
                raised = error


class Attendant:
    """Reconciles flows, and keeps a pace between them."""

    def __init__(self, reconciler: Reconciler, troubles: Troubles, pace: Pace) -> None:
        self._reconciler = reconciler
        self._troubles = troubles
        self._pace = pace
        self.attended = 0
        """How many flows it was given."""

    async def attend(self, flows: Iterable[Found], *, timers_at_least: int) -> set[Found]:
        """Reconciles flows, sets the timers that TIMER lacks, and returns the flows that failed. A flow that was purged
        or never began is no failure.

        Timers are read from a server that has TIMER up to sequence `timers_at_least`.
        """
        left: set[Found] = set()
        every = list(flows)
        for start in range(0, len(every), _AT_ONCE):
            some, meter = every[start : start + _AT_ONCE], Meter()
            done = await asyncio.gather(*(meter.measured(self._attend(each, timers_at_least)) for each in some))
            left |= {each for each, is_done in zip(some, done, strict=True) if not is_done}
            self._pace.resume()
            await self._pace.keep(timedelta(seconds=meter.spent) + len(some) * _ELSEWHERE)
        return left

    async def _attend(self, found: Found, timers_at_least: int) -> bool:
        flow_type, flow_id, at_least = found
        self.attended += 1
        try:
            await self._reconciler.reconcile(
                flow_type,
                flow_id,
                since=0,
                at_least=at_least,
                now=datetime.now(UTC),
                timers_at_least=timers_at_least,
            )
        except HandrailError as error:
            if is_given_up(error):
                return True
            self._troubles.failed(LOOP, flow_id, error)
            return False
        except Exception as error:
            self._troubles.failed(LOOP, flow_id, error)
            return False
        self._troubles.succeeded(LOOP, flow_id)
        return True
