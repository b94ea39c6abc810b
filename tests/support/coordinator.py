"""A coordinator in this process, without its gRPC API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus


@asynccontextmanager
async def running(replica: Replica, *, is_killed: bool = False) -> AsyncIterator[None]:
    """Lets the replica decide while the block runs. A killed replica does not sign off."""
    stopping = asyncio.Event()
    work = asyncio.create_task(replica.run(stopping))
    try:
        yield
        assert not work.done(), "the replica ended by itself"
    finally:
        stopping.set()
        if is_killed:
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work


@asynccontextmanager
async def coordinating(bus: NatsBus, *, is_killed: bool = False, **options: Any) -> AsyncIterator[Replica]:
    """Runs a replica on `bus` while the block runs, with these `options`. Streams and durables must exist."""
    replica = Replica(bus, **{"holder": "test", **options})
    await replica.prepare(replicas=1)
    async with running(replica, is_killed=is_killed):
        yield replica
