"""Purges the flows that have a verdict, in order, and each as often as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.purge_mark import PurgeMark
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import VerdictLog, numbered
from handrail.visibility.retention.departure import Departures, Found
from handrail.visibility.retention.latecomers import Latecomers
from handrail.visibility.retention.shelf import Shelf

log = logging.getLogger(__name__)

_REST = 4
"""How long it rests after a purge, in times of what that took: the broker walks whole blocks for one flow."""

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
                for number, verdict in some:
                    if is_stopping():
                        break
                    purged += await self._settle(number, verdict)
                    self._done = number
            finally:
                await asyncio.to_thread(self._mark.move, self._done)
        return purged

    def _next(self) -> list[tuple[int, Verdict]]:
        return list(islice(numbered(self._folder, after=self._done, withdrawn=True), _BATCH))

    async def _settle(self, number: int, verdict: Verdict) -> bool:
        """Purges a flow that is as it was judged, and withdraws the verdict on one that went on."""
        if verdict.erased:
            return False
        found = Found.CHANGED if verdict.withdrawn else await self._departures.found(verdict)
        if found is Found.CHANGED:
            await self._withdraw(number, verdict)
        elif found is Found.JUDGED:
            await self._purge(verdict)
        if found in (Found.JUDGED, Found.LATE) or (found is Found.NOTHING and number > self._verdicts.count - _BATCH):
            self._latecomers.expect(verdict)
        return found is Found.JUDGED

    async def _purge(self, verdict: Verdict) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        await self._departures.purge(verdict)
        took = clock() - begun
        await asyncio.sleep(max(_REST * took, 1 / self._rate - took))

    async def _withdraw(self, number: int, verdict: Verdict) -> None:
        if not verdict.withdrawn:
            log.warning("flow %s stays: it went on after it was judged, and before it was purged", verdict.flow_id)
            await asyncio.to_thread(self._verdicts.replace, number, verdict.as_withdrawn())
        await self._shelf.withdraw(number, verdict)
