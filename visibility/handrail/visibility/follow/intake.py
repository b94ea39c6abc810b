"""Batches of messages: as many as have come, so that work is shared under load and nothing waits without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from handrail.mesh.bus import RawMessage

BATCH = 2000
BATCH_BYTES = 8 << 20
"""The most messages of a batch, and their bytes, but for one message. As many may wait while one is worked on."""


class Intake:
    """Collects what a reader yields, while others work on what came before."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[RawMessage] = []
        self._bytes = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._failure: Exception | None = None

    async def collect(self, messages: AsyncGenerator[RawMessage, None]) -> None:
        """Collects until it is cancelled, or the reader fails: then `next` raises its error."""
        try:
            async with aclosing(messages) as each:
                async for message in each:
                    await self._room.wait()
                    self._waiting.append(message)
                    self._bytes += len(message.body)
                    self._came.set()
                    if len(self._waiting) >= self._most or self._bytes >= BATCH_BYTES:
                        self._room.clear()
        except Exception as error:
            self._failure = error
            self._came.set()

    async def next(self) -> list[RawMessage]:
        """Waits for messages and returns all that have come. Raises what the reader raised, after all that it gave."""
        await self._came.wait()
        if not self._waiting and self._failure is not None:
            raise self._failure
        batch, self._waiting, self._bytes = self._waiting, [], 0
        self._room.set()
        if self._failure is None:
            self._came.clear()
        return batch


@asynccontextmanager
async def collecting(messages: AsyncGenerator[RawMessage, None], *, most: int = BATCH) -> AsyncIterator[Intake]:
    """Collects while the block runs."""
    intake = Intake(most)
    task = asyncio.create_task(intake.collect(messages))
    try:
        yield intake
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
