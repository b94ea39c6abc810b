"""A PostgreSQL server for tests: Debian's package, on a socket in a folder of its own. It ends with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.nats_server import START_TIMEOUT, die_with_parent

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_USER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package creates this user."""

_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=20")


class PostgresServer:
    """One server with empty databases on demand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._databases = 0

    def address(self, database: str = _USER) -> str:
        """The address of a database, for SQLAlchemy."""
        return f"postgresql://{_USER}@/{database}?host={quote(str(self._folder))}"

    def new_database(self) -> str:
        """Creates an empty database and returns its address."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._ask(f"CREATE DATABASE {name}")
        return self.address(name)

    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._run("SELECT 1").returncode == 0

    def _ask(self, command: str) -> None:
        done = self._run(command)
        assert done.returncode == 0, done.stderr

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_BINARIES[-1] / "psql", "-h", self._folder, "-U", _USER, "-qc", command, _USER],
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Runs a server while the block runs; skips the test if the package is not installed."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    as_root = os.geteuid() == 0
    user = _USER if as_root else None
    if as_root:
        shutil.chown(folder, _USER, _USER)
    process = None
    try:
        data = folder / "data"
        subprocess.run(
            [_BINARIES[-1] / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        options = [part for each in _QUICK for part in ("-c", each)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [_BINARIES[-1] / "postgres", "-D", data, "-k", folder, *options],
                user=user,
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        server = PostgresServer(folder)
        _wait_for(server, process)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.is_ready():
        assert process.poll() is None, "PostgreSQL ended while it started"
        assert time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.05)
