"""Threads for plain handlers: a limited number at a time. A handler that outlives its attempt gives up its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from handrail.agents.errors import Busy

T = TypeVar("T")

_LOST_AT_MOST = 1000
"""How many threads may be lost to handlers that never return, before others have to wait for them."""


class Place:
    """A plain handler's place among those that run at a time. `give_up` lets another in while its thread still runs."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._held = False

    async def take(self, *, within: timedelta | None = None) -> None:
        """Waits for a place, unless it is held; raises `Busy` if none is free in time: another worker may have one."""
        if self._held:
            return
        try:
            async with asyncio.timeout(None if within is None else within.total_seconds()):
                await self._places.acquire()
        except TimeoutError:
            raise Busy("all threads of this worker are taken") from None
        self._held = True

    def give_up(self) -> None:
        """Lets another in; a second call does nothing."""
        if self._held:
            self._held = False
            self._places.release()


class Threads:
    """Runs plain handlers, `limit` at a time."""

    def __init__(self, limit: int, name: str = "") -> None:
        self._places = asyncio.Semaphore(limit)
        # An idle thread is used before a new one is started: there are more only while some are lost.
        self._pool = ThreadPoolExecutor(limit + _LOST_AT_MOST, thread_name_prefix=f"{name}-handler")

    def place(self) -> Place:
        """Returns a place that is not taken yet."""
        return Place(self._places)

    async def run(self, call: Callable[[], T], place: Place) -> T:
        """Returns the result of `call`, made in a thread once the place is taken."""
        await place.take()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            place.give_up()

    def shutdown(self) -> None:
        """Starts nothing more. Running threads continue."""
        self._pool.shutdown(wait=False, cancel_futures=True)
