"""Waiting for an event with a time limit, and between retries with a growing delay."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

FIRST_WAIT = timedelta(seconds=0.02)
LONGEST_WAIT = timedelta(seconds=0.5)
"""Delays between two reads of a replica that may lag."""

_CANCEL_AGAIN = 0.5
"""Seconds until a task that goes on after its cancellation is cancelled again."""


async def pause(event: asyncio.Event, duration: timedelta) -> None:
    """Waits for this duration, or until the event is set."""
    # Not wait_for: before Python 3.12 it loses a cancellation that arrives together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(duration.total_seconds()):
            await event.wait()


class Patience:
    """Limits retries to a duration that starts at construction. Each wait doubles, up to `longest`."""

    def __init__(
        self, duration: timedelta, *, first: timedelta = FIRST_WAIT, longest: timedelta = LONGEST_WAIT
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + duration.total_seconds()
        self._wait = first
        self._longest = longest

    @property
    def left(self) -> timedelta:
        """The time left."""
        return timedelta(seconds=max(0.0, self._ends_at - self._loop.time()))

    async def wait(self) -> bool:
        """Waits before the next try. Returns False at once if the time would run out before it."""
        if self._wait > self.left:
            return False
        await asyncio.sleep(self._wait.total_seconds())
        self._wait = min(self._wait * 2, self._longest)
        return True


async def cancelled(task: asyncio.Task[object]) -> None:
    """Cancels a task until it has ended: a library may lose a cancellation, and go on for ever."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN)
