"""The ends of sessions that no request brings about: those that are over, and all when the console ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from handrail.console.web.console import Console, now

EVERY = timedelta(minutes=1)
"""How often sessions that are over are looked for."""

_AT_THE_END = timedelta(seconds=5)
"""So long the console waits, when it ends, for the provider to revoke the tokens of all sessions."""


@asynccontextmanager
async def ending(console: Console) -> AsyncIterator[None]:
    """Ends sessions when they are over while the block runs, and all that are left after it."""
    looking = asyncio.create_task(_look(console))
    try:
        yield
    finally:
        looking.cancel()
        console.sessions.end_all()
        await console.revocations.finish(_AT_THE_END)


async def _look(console: Console) -> None:
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        console.sessions.end_expired(now())
