"""Purges the flows that have a verdict, in order, and each as often as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import islice

from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.purge_mark import PurgeMark
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import VerdictLog, numbered
from handrail.visibility.retention.departure import Departures, Found, Look
from handrail.visibility.retention.latecomers import Latecomers
from handrail.visibility.retention.shelf import Shelf

log = logging.getLogger(__name__)

_REST = 1
"""How long it rests after some purges, in times of what these took."""

_TOGETHER = 10
"""Flows that are looked at together, and then purged at the same time: what comes in between is late. One after the
other, they would wait for each other's answers, which take longer than what the broker does."""

_FRESH = 0.5
"""Seconds after which flows are looked at again before they are purged: the broker took long to answer."""

_BATCH = 100
"""Flows that are purged before it is noted on the disk; after a crash, these are looked at again."""


class Purges:
    """Purges what the verdicts of an archive name. `rate` is the most flows in a second. Raises Damaged."""

    def __init__(
        self,
        folder: LockedFolder,
        verdicts: VerdictLog,
        departures: Departures,
        shelf: Shelf,
        latecomers: Latecomers,
        *,
        rate: int,
    ) -> None:
        self._folder = folder
        self._verdicts = verdicts
        self._departures = departures
        self._shelf = shelf
        self._latecomers = latecomers
        self._rate = rate
        self._mark = PurgeMark(folder)
        self._done = min(self._mark.number, verdicts.count)
        for number, verdict in numbered(folder, after=max(0, self._done - _BATCH)):
            if number <= self._done:
                latecomers.expect(verdict)

    async def go_on(self, is_stopping: Callable[[], bool]) -> int:
        """Purges, or withdraws the verdict on, each flow that was not purged yet. Returns how many were purged.

        Raises Damaged, CannotWrite, and what the broker's answers raise: then the next call goes on.
        """
        purged = 0
        while not is_stopping() and (some := await asyncio.to_thread(self._next)):
            try:
                for start in range(0, len(some), _TOGETHER):
                    if is_stopping():
                        break
                    purged += await self._settle(some[start : start + _TOGETHER])
            finally:
                await asyncio.to_thread(self._mark.move, self._done)
        return purged

    def _next(self) -> list[tuple[int, Verdict]]:
        return list(islice(numbered(self._folder, after=self._done, withdrawn=True), _BATCH))

    async def _settle(self, some: Sequence[tuple[int, Verdict]]) -> int:
        """Purges flows that are as they were judged, and withdraws the verdicts on those that went on. Returns how many
        were purged.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        there = [(number, verdict) for number, verdict in some if not verdict.erased]
        looks = await self._departures.look([verdict for _, verdict in there])
        if clock() - begun > _FRESH:
            looks = await self._departures.look([verdict for _, verdict in there])
        looked = [(number, verdict, look) for (number, verdict), look in zip(there, looks, strict=True)]
        for number, verdict, look in looked:
            is_new = number > self._verdicts.count - _BATCH
            if look.found in (Found.JUDGED, Found.LATE) or (look.found is Found.NOTHING and is_new):
                self._latecomers.expect(verdict)
        purged = await self._purge([(verdict, look) for _, verdict, look in looked if look.found is Found.JUDGED])
        for number, verdict, look in looked:
            if look.found is Found.CHANGED:
                await self._withdraw(number, verdict)
        self._done = some[-1][0]
        if purged:
            took = clock() - begun
            await asyncio.sleep(max(_REST * took, purged / self._rate - took))
        return purged

    async def _purge(self, some: Sequence[tuple[Verdict, Look]]) -> int:
        """Purges all of these; returns how many they are. Raises if one got no answer, after all others had theirs."""
        leaving = [self._departures.purge(verdict, look.judged) for verdict, look in some]
        for answer in await asyncio.gather(*leaving, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        return len(some)

    async def _withdraw(self, number: int, verdict: Verdict) -> None:
        if not verdict.withdrawn:
            log.warning("flow %s stays: it went on after it was judged, and before it was purged", verdict.flow_id)
            await asyncio.to_thread(self._verdicts.replace, number, verdict.as_withdrawn())
        await self._shelf.withdraw(number, verdict)
