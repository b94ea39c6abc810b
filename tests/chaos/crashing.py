"""A coordinator process that exits hard after its n-th broker call. It is forked from a process that has imported
everything."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from handrail.coordinator.api.server import ServerSettings
from handrail.coordinator.main import CoordinatorSettings, run_coordinator
from handrail.mesh.bus import BusSettings
from handrail.mesh.bus.connection import Connection

CRASHED = 77
"""The exit code of a coordinator that crashed on purpose."""

_NOT_COUNTED = (
    "$JS.API.CONSUMER.MSG.NEXT.",
    "$JS.API.DIRECT.GET.TEMPLATE",
)
"""Calls that depend on the clock, not on the operation."""


def context() -> ForkServerContext:
    """Starts processes in milliseconds: the fork server has imported this module."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([__name__])
    return forkserver


class CoordinatorProcess:
    """One coordinator in a process of its own. `calls` counts its broker calls since it was ready."""

    def __init__(self, nats_url: str, public_key: Path, *, crash_after: int | None) -> None:
        self._nats_url = nats_url
        self._public_key = public_key
        self._calls = context().Value("i", 0)
        self._begin(0, crash_after, self._calls)

    def _begin(self, port: int, crash_after: int | None, calls: object) -> None:
        ours, theirs = context().Pipe()
        self._pipe: Pipe = ours
        self.process: ForkServerProcess = context().Process(
            target=_run,
            args=(self._nats_url, str(self._public_key), port, crash_after, theirs, calls),
            daemon=True,
        )
        self.process.start()
        theirs.close()

    async def begin_again(self, port: int) -> None:
        """Replaces a crashed coordinator with one that does not crash and does not count its calls."""
        self._uncounted = context().Value("i", 0)
        self._begin(port, None, self._uncounted)
        await self.ready()

    @property
    def calls(self) -> int:
        """Broker calls so far."""
        return int(self._calls.value)

    async def ready(self) -> int:
        """Waits until it serves and returns its port. Raises AssertionError if it ends before."""
        loop = asyncio.get_running_loop()
        try:
            return int(await loop.run_in_executor(None, self._pipe.recv))
        except EOFError:
            raise AssertionError(f"the coordinator ended with {self.process.exitcode} before it was ready") from None

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self.process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    async def stop(self) -> None:
        """Stops it gracefully."""
        if self.process.is_alive():
            self.process.terminate()
        await self.ended()


def _run(nats_url: str, public_key: str, port: int, crash_after: int | None, ready: Pipe, calls: object) -> None:
    settings = CoordinatorSettings(
        bus=BusSettings(servers=(nats_url,), name="coordinator"),
        server=ServerSettings(
            address=f"127.0.0.1:{port}",
            public_keys=(Path(public_key),),
            check_warm=False,
            grace=timedelta(milliseconds=200),
        ),
        lease_ttl=timedelta(seconds=1),
        sweep_interval=timedelta(hours=1),
    )

    def on_ready(listening: int) -> None:
        _count_calls(calls, crash_after)
        ready.send(listening)
        ready.close()

    asyncio.run(run_coordinator(settings, on_ready=on_ready))


def _count_calls(calls: object, crash_after: int | None) -> None:
    send = Connection.send
    dying = False

    def counted(
        self: Connection, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        nonlocal dying
        if dying:
            return
        send(self, subject, body, reply=reply, headers=headers)
        if subject.startswith(_NOT_COUNTED):
            return
        calls.value += 1  # type: ignore[attr-defined]
        if calls.value == crash_after:  # type: ignore[attr-defined]
            dying = True
            tasks.add(asyncio.get_running_loop().create_task(_die(self)))

    tasks: set[asyncio.Task[None]] = set()
    Connection.send = counted  # type: ignore[method-assign]


async def _die(connection: Connection) -> None:
    """Exits as soon as the broker has the last call, without handlers, flushes or a goodbye."""
    await connection.flush(timedelta(seconds=5))
    os._exit(CRASHED)
