"""A worker process, seen from the coordinator: started, asked, and killed at a limit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from datetime import timedelta

from handrail.coordinator.workers import child, frames
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_START = timedelta(seconds=60)
"""How long a process may take to start."""

_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "TZ")
"""The environment of a worker: it has no business with passwords and tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one job may take: `time` of a processor, and `memory` in bytes."""

    time: timedelta = timedelta(seconds=2)
    memory: int = 512 << 20

    @property
    def patience(self) -> timedelta:
        """How long to wait for an answer, on a machine that is busy with other things."""
        return 10 * self.time + timedelta(seconds=10)


class WorkerProcess:
    """One process. It is started with its first job, or by `start`; after it was killed, a new one takes its place."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: Process | None = None

    async def start(self) -> Process:
        """Starts the process if none runs, and waits until it is ready. Raises `HandrailError` if it does not start."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        seconds = max(1, round(self._limits.time.total_seconds()))
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", child.__name__, str(seconds), str(self._limits.memory),
            stdin=PIPE, stdout=PIPE, limit=frames.MAX_BYTES, start_new_session=True,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START.total_seconds()):
                await frames.receive(process.stdout)
        except (EOFError, TimeoutError):
            raise HandrailError(
                ErrorReason.ERROR_REASON_INTERNAL,
                f"the process that checks templates does not start: it ended with {await self.stop()}; see the log",
            ) from None
        return process

    async def run(self, job: str, data: bytes) -> list[bytes]:
        """The results of a job. Raises the error of the job, or LIMIT_EXCEEDED if it was ended at a limit."""
        request = frames.packed([job.encode(), data])
        try:
            parts = await self._ask(request) or await self._ask(request)
        except TimeoutError:
            await self.stop()
            raise _exceeded(f"{self._limits.patience.total_seconds():g} s", "patience") from None
        except BaseException:
            await self.stop()  # its answer would be taken for that of the next job
            raise
        return frames.results(parts)

    async def _ask(self, request: bytes) -> list[bytes]:
        """The answer of the process; empty if it had ended by itself before, to make room."""
        process = await self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._limits.patience.total_seconds()):
                process.stdin.write(request)
                await process.stdin.drain()
                return await frames.receive(process.stdout)
        except (EOFError, ConnectionError):
            status = await self.stop()
            if status == 0:
                return []
            raise self._ended(status) from None

    async def stop(self) -> int:
        """Ends the process, whatever it does, and returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            try:
                # One that is ending for a reason of its own says which.
                async with asyncio.timeout(10 if process.stdout is not None and process.stdout.at_eof() else 0):
                    return await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait()

    def _ended(self, status: int) -> HandrailError:
        if status == -signal.SIGXCPU:
            return _exceeded(f"{self._limits.time.total_seconds():g} s of processor time", "time")
        if status in (child.OUT_OF_MEMORY, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL):
            return _exceeded(f"{self._limits.memory >> 20} MiB of memory", "memory")
        return HandrailError(
            ErrorReason.ERROR_REASON_INTERNAL, f"the process that checks templates ended with status {status}"
        )


def _exceeded(what: str, limit: str) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        f"checking this template and its contracts takes more than {what}; "
        "send only the contracts that the template needs, and fewer or shorter expressions",
        limit=limit,
    )
