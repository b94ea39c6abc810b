"""A coordinator in this process, without its gRPC face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus


@asynccontextmanager
async def running(replica: Replica, *, is_killed: bool = False) -> AsyncIterator[None]:
    """Let the replica decide while the block runs. One that is killed then says no farewell."""
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
    """A replica that decides on `bus` while the block runs; `options` are its own. Streams and durables are there."""
    replica = Replica(bus, **{"holder": "test", **options})
    await replica.prepare(replicas=1)
    async with running(replica, is_killed=is_killed):
        yield replica
