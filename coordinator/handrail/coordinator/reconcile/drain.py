"""The orderly end of a server, told to whatever streams an answer."""

from __future__ import annotations

import asyncio


class Drain:
    """Says that this server is about to end; streams end themselves then."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """From now on."""
        self._begun.set()

    @property
    def begun(self) -> bool:
        """Whether it has begun."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Until it begins."""
        await self._begun.wait()
