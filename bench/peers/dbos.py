"""DBOS under load: PostgreSQL, which syncs each commit to disk, and one process with the workflows."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.bare import answers
from bench.contender import ROOT
from bench.meter import Processes
from bench.peers import interpreter, postgres
from handrail.cli.dev.processes import Child, free_port, stop, wait_until

_START_SECONDS = 60.0
_GRACE = 10.0
_USER = "postgres"
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "1GB"}


class Dbos:
    """Use it as a context, then `open` it. In `approved` a person answers `park` seconds after the start."""

    def __init__(self, folder: Path, peers: Path, park: float) -> None:
        self.timings: dict[str, list[float]] = {}
        self._peers = peers
        self._park = park
        self._port = free_port()
        self._names = itertools.count(1)
        self._waiting: dict[str, Callable[[], None]] = {}
        self._log = folder / "dbos.log"
        self._data = folder / "postgres"
        self._database = Child("postgres", self._command(), log=folder / "postgres.log", folder=folder)

    def __enter__(self) -> Dbos:
        # PostgreSQL refuses to run as root.
        user = _USER if os.geteuid() == 0 else None
        self._data.mkdir()
        self._data.parent.chmod(0o755)
        if user:
            shutil.chown(self._data, user, user)
        initdb = (str(postgres("initdb")), "-D", str(self._data), "-U", _USER, "-A", "trust", "-E", "UTF8")
        subprocess.run([*initdb, "--locale=C", "--no-instructions"], check=True, stdout=subprocess.DEVNULL, user=user)
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.writelines(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, "port": self._port}.items())
        self._database.start()
        wait_until(lambda: answers(self._port), self._database, seconds=_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._database], grace=_GRACE)

    async def open(self) -> None:
        """Starts the process with the workflows, which creates its tables."""
        url = f"postgresql://{_USER}@127.0.0.1:{self._port}/dbos"
        with self._log.open("ab") as log:
            self._application = await asyncio.create_subprocess_exec(
                str(interpreter(self._peers)), "-m", "bench.peers.dbos_flows", url,
                cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._application.stdout is not None
        while (line := await self._application.stdout.readline()).strip() != b"ready":
            if not line:
                raise AssertionError(f"the workflows did not start: {self._log.read_text()[-500:]}")
        self._listening = asyncio.create_task(self._listen(self._application.stdout))

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        name = f"flow-{next(self._names)}"
        self._waiting[name] = on_end
        self._tell(f"start {work} {name}")
        if work == "approved":
            asyncio.get_running_loop().call_later(self._park, self._tell, f"approve {name}")

    def processes(self) -> Processes:
        """The database and the workflows."""
        return {"postgres": [self._database.pid], "workflows": [self._application.pid]}

    async def settled(self) -> None:
        """A flow has ended when its caller is told."""

    async def close(self) -> None:
        """Ends the process with the workflows."""
        self._listening.cancel()
        self._application.kill()
        await self._application.wait()

    def _tell(self, line: str) -> None:
        assert self._application.stdin is not None
        self._application.stdin.write(line.encode() + b"\n")

    async def _listen(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            on_end = self._waiting.pop(line.decode().strip(), None)
            if on_end is not None:
                on_end()

    def _command(self) -> list[str]:
        program = [str(postgres("postgres")), "-D", str(self._data)]
        return (
            ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", *program]
            if os.geteuid() == 0
            else program
        )
