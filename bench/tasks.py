"""Tasks beside the event loop's callbacks; a failure is printed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine


class Tasks:
    """Runs coroutines and keeps them alive. The flow of one that fails does not end, so its turn fails."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Begins one."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"bench: {error!r:.300}", file=sys.stderr)
