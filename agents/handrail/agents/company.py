"""Which handlers run side by side in a process: a handler that may kill the process runs alone, and harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from handrail.agents.errors import Busy

_PATIENCE = timedelta(seconds=5)
"""How long others wait for a handler that runs alone; then they are handed back for another worker."""


class Seat:
    """One handler's place in the company. `leave` it once the handler is done, or nobody waits for it any more."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """Frees the seat; a second call does nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Company:
    """The handlers that run in one process: each takes a seat before it is called."""

    def __init__(self) -> None:
        self._running = 0
        self._loners = 0
        self._changed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Tells whether a handler runs alone, or waits until it can."""
        return self._loners > 0

    def sit(self) -> Seat:
        """Returns a seat at once, for a handler that runs beside others; call it only if the company is not closed."""
        self._running += 1
        return Seat(self._one_leaves)

    async def join(self, *, alone: bool) -> Seat:
        """Waits until this handler may run: an `alone` one until the others are done, the others until it is.

        Raises `Busy` if an `alone` one takes long.
        """
        if alone:
            await self._join_alone()
        elif self._loners:
            try:
                async with asyncio.timeout(_PATIENCE.total_seconds()):
                    await self._until(lambda: self._loners == 0)
            except TimeoutError:
                raise Busy("a handler that may have killed its process runs alone in this process") from None
        if not alone:
            return self.sit()
        self._running += 1
        return Seat(self._alone_leaves)

    def _one_leaves(self) -> None:
        self._running -= 1
        if self._loners:
            self._tell()

    def _alone_leaves(self) -> None:
        self._loners -= 1
        self._running -= 1
        self._tell()

    async def _join_alone(self) -> None:
        self._loners += 1
        try:
            await self._until(lambda: self._running == 0)
        except BaseException:
            self._loners -= 1
            self._tell()
            raise

    async def _until(self, met: Callable[[], bool]) -> None:
        while not met():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
