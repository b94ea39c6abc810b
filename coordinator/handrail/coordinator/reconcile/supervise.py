"""Keeps a loop of the process alive: a loop that fails is restarted, and the others continue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.waiting import pause

_FIRST_WAIT = timedelta(seconds=0.5)
_LONGEST_WAIT = timedelta(seconds=15)
_STEADY = timedelta(seconds=20)
"""How long a loop must run before an earlier failure counts as resolved."""

Run = Callable[[asyncio.Event], Awaitable[None]]


async def keep_running(name: str, run: Run, stopping: asyncio.Event, troubles: Troubles) -> None:
    """Runs a loop until `stopping` is set. Raises nothing but a cancellation; a failure counts as a trouble."""
    loop = asyncio.get_running_loop()
    wait = _FIRST_WAIT
    while not stopping.is_set():
        steady = loop.call_later(_STEADY.total_seconds(), troubles.succeeded, name)
        began_at = loop.time()
        try:
            await run(stopping)
            return
        except Exception as error:
            troubles.failed(name, "", error)
        finally:
            steady.cancel()
        if loop.time() - began_at > _STEADY.total_seconds():
            wait = _FIRST_WAIT
        await pause(stopping, wait)
        wait = min(wait * 2, _LONGEST_WAIT)
