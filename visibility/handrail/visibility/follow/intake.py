"""Batches of messages: as many as have come, so that work is shared under load and nothing waits without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta

from handrail.mesh.bus import RawMessage
from handrail.mesh.waiting import cancelled
from handrail.visibility.follow.load import Load

_BATCH_BYTES = 8 << 20
"""About the most bytes of a batch. As many may wait while one is worked on."""

_PACE = timedelta(seconds=0.2)
"""The least time from one batch to the next, unless the next is full. Each batch has costs of its own, and each flow in
it: W1 takes half of the CPU in batches of 1,000 that it takes in those of 100.
"""


class Intake:
    """Collects what a reader yields, while others work on what came before."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._clock = asyncio.get_running_loop().time
        self._earliest = 0.0
        self._waiting: list[RawMessage] = []
        self._bytes = 0
        self._came = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._failure: Exception | None = None

    async def collect(self, pages: AsyncGenerator[Sequence[RawMessage], None]) -> None:
        """Collects until it is cancelled, or the reader fails: then `next` raises its error."""
        try:
            async with aclosing(pages) as each:
                async for page in each:
                    await self._room.wait()
                    self._waiting += page
                    self._bytes += sum([len(message.body) for message in page])
                    self._came.set()
                    if len(self._waiting) >= self._load.batch or self._bytes >= _BATCH_BYTES:
                        self._full.set()
                        self._room.clear()
        except Exception as error:
            self._failure = error
            self._came.set()
            self._full.set()

    async def next(self) -> list[RawMessage]:
        """Waits for messages and returns all that have come. Raises what the reader raised, after all that it gave."""
        await self._came.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._earliest):
                await self._full.wait()
        if not self._waiting and self._failure is not None:
            raise self._failure
        self._earliest = self._clock() + _PACE.total_seconds()
        batch, self._waiting, self._bytes = self._waiting, [], 0
        self._room.set()
        if self._failure is None:
            self._came.clear()
            self._full.clear()
        return batch


@asynccontextmanager
async def collecting(pages: AsyncGenerator[Sequence[RawMessage], None], load: Load) -> AsyncIterator[Intake]:
    """Collects while the block runs."""
    intake = Intake(load)
    task = asyncio.create_task(intake.collect(pages))
    try:
        yield intake
    finally:
        await cancelled(task)
