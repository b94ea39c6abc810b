"""Waiting: for an event, but not for ever, and between two tries, until patience ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

FIRST_WAIT = timedelta(seconds=0.02)
LONGEST_WAIT = timedelta(seconds=0.5)
"""Between two looks at replicas that lag."""


async def pause(event: asyncio.Event, duration: timedelta) -> None:
    """Wait so long, or until the event is set."""
    # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(duration.total_seconds()):
            await event.wait()


class Patience:
    """How long something is tried again, from now on. Each wait is twice the one before, up to the longest."""

    def __init__(
        self, duration: timedelta, *, first: timedelta = FIRST_WAIT, longest: timedelta = LONGEST_WAIT
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + duration.total_seconds()
        self._wait = first
        self._longest = longest

    @property
    def left(self) -> timedelta:
        """What is left of it."""
        return timedelta(seconds=max(0.0, self._ends_at - self._loop.time()))

    async def wait(self) -> bool:
        """Wait before the next try; False at once where patience would end before it."""
        if self._wait > self.left:
            return False
        await asyncio.sleep(self._wait.total_seconds())
        self._wait = min(self._wait * 2, self._longest)
        return True
