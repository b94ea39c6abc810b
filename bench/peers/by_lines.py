"""A process that starts a peer's flows in the peer's environment, told line by line.

It prints `ready`, then reads `start WORK NAME` and `approve NAME`, and prints the name of each flow that has ended.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from bench.contender import ROOT


class ByLines:
    """The process and the flows that it runs. In `approved` a person answers `park` seconds after the start."""

    def __init__(self, park: float) -> None:
        self._park = park
        self._names = itertools.count(1)
        self._waiting: dict[str, Callable[[], None]] = {}

    async def open(self, *command: str, log: Path) -> None:
        """Starts the process. Raises AssertionError if it ends instead of getting ready."""
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output
            )
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).strip() != b"ready":
            if not line:
                raise AssertionError(f"{command[2]} did not start: {await asyncio.to_thread(log.read_text)}")
        self._listening = asyncio.create_task(self._listen(self._process.stdout))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        name = f"flow-{next(self._names)}"
        self._waiting[name] = on_end
        self._tell(f"start {work} {name}")
        if work == "approved":
            asyncio.get_running_loop().call_later(self._park, self._tell, f"approve {name}")

    async def close(self) -> None:
        """Ends the process."""
        self._listening.cancel()
        self._process.kill()
        await self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _listen(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            on_end = self._waiting.pop(line.decode().strip(), None)
            if on_end is not None:
                on_end()
