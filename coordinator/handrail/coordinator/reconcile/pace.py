"""The pace of long work: how much is done between two turns of the event loop, and how much of a core it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

STRETCH = timedelta(milliseconds=2)
"""How much CPU long work takes before other work of this process gets its turn."""


class Pace:
    """The pace of one piece of work, which calls `keep` between small steps. It takes at most `share` of a core."""

    def __init__(self, *, share: float = 1.0, clock: Callable[[], float] = time.thread_time) -> None:
        self.share = share
        self._clock = clock
        self._since = clock()
        self._spent = 0.0

    def resume(self) -> None:
        """Call it after the work waited for something: what others did meanwhile does not count."""
        self._since = self._clock()

    async def keep(self, more: timedelta = timedelta()) -> None:
        """Lets others have their turn once the work has taken two milliseconds of CPU since it last did.

        `more` is CPU that this process spent on the work elsewhere, such as in the connection.
        """
        self._spent += self._clock() - self._since + more.total_seconds()
        if self._spent >= STRETCH.total_seconds():
            spent, self._spent = self._spent, 0.0
            await asyncio.sleep(spent * (1 / self.share - 1))
        self.resume()
