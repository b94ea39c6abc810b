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
"""Flows that are looked at together, and then purged one after the other: what comes in between is late."""

_FRESH = 0.5
"""Seconds after which a flow is looked at again before it is purged: the others took long, or the broker did."""

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
        begun, purged = clock(), 0
        looks = await self._departures.look([verdict for _, verdict in some])
        for (number, verdict), look in zip(some, looks, strict=True):
            if not verdict.erased:
                is_fresh = clock() - begun <= _FRESH
                now = look if is_fresh else (await self._departures.look([verdict]))[0]
                purged += await self._settle_one(number, verdict, now)
            self._done = number
        if purged:
            took = clock() - begun
            await asyncio.sleep(max(_REST * took, purged / self._rate - took))
        return purged

    async def _settle_one(self, number: int, verdict: Verdict, look: Look) -> bool:
        if look.found is Found.CHANGED:
            await self._withdraw(number, verdict)
            return False
        if look.found is not Found.NOTHING or number > self._verdicts.count - _BATCH:
            self._latecomers.expect(verdict)
        if look.found is Found.JUDGED:
            await self._departures.purge(verdict, look.judged)
            return True
        return False

    async def _withdraw(self, number: int, verdict: Verdict) -> None:
        if not verdict.withdrawn:
            log.warning("flow %s stays: it went on after it was judged, and before it was purged", verdict.flow_id)
            await asyncio.to_thread(self._verdicts.replace, number, verdict.as_withdrawn())
        await self._shelf.withdraw(number, verdict)
