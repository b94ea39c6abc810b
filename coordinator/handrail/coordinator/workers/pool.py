"""A few worker processes, and who is next: callers take turns, so that none of them keeps the others waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from handrail.coordinator.workers.process import Limits, WorkerProcess
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

MOST_WAITING, MOST_OF_ONE = 64, 8
"""The longest queue, and how many places in it one caller may have."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job that waits for a process, or is in one."""

    job: str
    data: bytes
    results: asyncio.Future[list[bytes]]


class WorkerPool:
    """Runs jobs in processes. It takes no process until there is a job, or until `warm`."""

    def __init__(self, number: int, limits: Limits | None = None) -> None:
        self._processes = [WorkerProcess(limits or Limits()) for _ in range(number)]
        self._idle = list(self._processes)
        self._queues: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def warm(self) -> None:
        """Starts the processes, without waiting for them."""
        while self._idle:
            self._spawn(self._idle.pop())

    async def run(self, job: str, data: bytes, *, caller: str) -> list[bytes]:
        """The results of a job of this caller, when it is its turn.

        Raises the error of the job; LIMIT_EXCEEDED if it was ended at a limit, or if too many wait already; DRAINING
        after `close`.
        """
        if self._is_closed:
            raise HandrailError(ErrorReason.ERROR_REASON_DRAINING, "this server is draining; ask another one")
        queue = self._queues.setdefault(caller, deque())
        if len(queue) >= MOST_OF_ONE:
            raise _full(f"{MOST_OF_ONE} of your calls wait to be checked already", "waiting_of_one_caller")
        if sum(map(len, self._queues.values())) >= MOST_WAITING:
            raise _full(f"{MOST_WAITING} calls wait to be checked already", "waiting")
        waiting = _Waiting(job, data, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        if self._idle:
            self._spawn(self._idle.pop())
        try:
            return await waiting.results
        finally:
            if waiting in queue:  # its caller gave up
                queue.remove(waiting)

    async def close(self) -> None:
        """Ends all processes; what waits fails."""
        self._is_closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in self._processes))

    def _spawn(self, process: WorkerProcess) -> None:
        task = asyncio.get_running_loop().create_task(self._work(process), name="template worker")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, process: WorkerProcess) -> None:
        """Does jobs in a process until none waits; the process is left ready for the next one."""
        try:
            while (waiting := self._next()) is not None:
                await _do(process, waiting)
            await process.start()
        except HandrailError as error:
            _logger.error("%s", error.text)
        finally:
            self._idle.append(process)
            if self._queues and not self._is_closed:
                self._spawn(self._idle.pop())

    def _next(self) -> _Waiting | None:
        """The next job: callers take turns."""
        while self._queues:
            caller = next(iter(self._queues))
            queue = self._queues.pop(caller)
            waiting = queue.popleft() if queue else None
            if queue:
                self._queues[caller] = queue  # at the end of the line
            if waiting is not None and not waiting.results.done():
                return waiting
        return None


async def _do(process: WorkerProcess, waiting: _Waiting) -> None:
    try:
        results = await process.run(waiting.job, waiting.data)
    except Exception as error:
        if not waiting.results.done():
            waiting.results.set_exception(error)
    except BaseException:
        waiting.results.cancel()
        raise
    else:
        if not waiting.results.done():
            waiting.results.set_result(results)


def _full(why: str, limit: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, f"{why}; wait until they are answered", limit=limit)
