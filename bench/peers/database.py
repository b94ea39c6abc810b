"""A PostgreSQL of a peer's own, which syncs each commit to disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.bare import answers
from bench.peers import postgres
from handrail.cli.dev.processes import Child, free_port, stop, wait_until

_START_SECONDS = 60.0
_GRACE = 10.0
_USER = "postgres"
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "1GB"}


class Database:
    """Runs on the loopback address; `start` it, then `stop` it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._data = folder / "postgres"
        command = [str(postgres("postgres")), "-D", str(self._data)]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", *command]
        self._server = Child("postgres", command, log=folder / "postgres.log", folder=folder)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._server.pid

    def url(self, database: str, driver: str = "postgresql") -> str:
        """The URL of a database."""
        return f"{driver}://{_USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Creates the files, starts the server, and waits until it answers."""
        user = _USER if os.geteuid() == 0 else None
        self._data.mkdir()
        self._data.parent.chmod(0o755)
        if user:
            shutil.chown(self._data, user, user)
        initdb = (str(postgres("initdb")), "-D", str(self._data), "-U", _USER, "-A", "trust", "-E", "UTF8")
        subprocess.run([*initdb, "--locale=C", "--no-instructions"], check=True, stdout=subprocess.DEVNULL, user=user)
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.writelines(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, "port": self.port}.items())
        self._server.start()
        wait_until(lambda: answers(self.port), self._server, seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stops the server."""
        stop([self._server], grace=_GRACE)
