"""The drain of a server: tells streaming responses that it shuts down."""

from __future__ import annotations

import asyncio


class Drain:
    """Announces that this server is about to stop; streaming calls then end themselves."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Begins the drain."""
        self._begun.set()

    @property
    def begun(self) -> bool:
        """Whether the drain has begun."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Waits until the drain begins."""
        await self._begun.wait()
