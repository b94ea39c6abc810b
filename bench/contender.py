"""A system under load, seen from the process that lets the systems take turns."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figures

ROOT = Path(__file__).parents[1]

_GRACE = 60.0


class Failed(Exception):
    """A turn did not end as it should; the text says what is missing."""


class Turn:
    """What a worker does next: closed, paced, timers or join, with its options (see `bench.worker`)."""

    def __init__(self, do: str, **options: str | float) -> None:
        self.command = json.dumps({"do": do, **options}).encode() + b"\n"


class Contender:
    """A worker process (see `bench.worker`), and its `name` in tables."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def take(self, turn: Turn) -> Figures:
        """Lets it take a turn. Raises Failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(turn.command)
        answer = await self._heard()
        if "failed" in answer:
            raise Failed(f"{self.name}: {answer['failed']}")
        return Figures.from_json(answer["figures"])

    async def ready(self) -> None:
        """Waits until its processes run. Raises Failed."""
        await self._heard()

    async def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended with status {await self._process.wait()}: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def running(name: str, arguments: Sequence[str], *, python: Path | None = None) -> AsyncIterator[Contender]:
    """Runs a worker with this interpreter (default: ours) while the block runs."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        str(python or sys.executable),
        "-m",
        "bench.worker",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    contender = Contender(name, process)
    try:
        await contender.ready()
        yield contender
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
