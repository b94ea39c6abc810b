"""Archive and index: each goes on while the other can't be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

from handrail.mesh.errors import HandrailError

log = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(seconds=15)
"""Between two tries; each time twice as long."""


class Part:
    """One of both. `means_away` tells by an error that it can't be written."""

    def __init__(self, name: str, means_away: Callable[[HandrailError], bool]) -> None:
        self.name = name
        self.means_away = means_away
        self._is_away = asyncio.Event()
        self._wait = FIRST_WAIT

    @property
    def works(self) -> bool:
        """Whether it is there, and can be written as far as known."""
        return not self._is_away.is_set()

    def begin(self, *, works: bool) -> None:
        """Begins anew."""
        if works:
            self._is_away.clear()
        else:
            self._is_away.set()

    async def do(self, work: Awaitable[object], *, other: Part) -> None:
        """Awaits work on this part. If it fails because the part is away, and the other works, it is left for later."""
        try:
            await work
        except HandrailError as error:
            if not self.means_away(error) or not other.works:
                raise
            log.warning("%s; the %s goes on without it", error.text, other.name)
            self._is_away.set()
        else:
            self._wait = FIRST_WAIT

    async def until_back(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Returns once an attempt has succeeded after the part was away."""
        await self._is_away.wait()
        while True:
            await asyncio.sleep(self._wait.total_seconds())
            self._wait = min(self._wait * 2, LONGEST_WAIT)
            try:
                await attempt()
                return
            except HandrailError as error:
                if not self.means_away(error):
                    raise
                log.warning("%s; trying again", error.text)


async def together(work: Iterable[Awaitable[None]]) -> None:
    """Awaits all of it; then raises what the first that failed raised."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome
