"""The processes of an installation beside its broker, each with its own credentials."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from handrail.cli.dev.broker import Broker
from handrail.cli.dev.processes import Child
from handrail.mesh.permissions import RETENTION, VISIBILITY
from handrail.mesh.wire.subjects import COORDINATOR

CONSOLE = "console"
"""The name of the console's process."""

_NOT_INHERITED = (
    "HANDRAIL_NATS",
    "HANDRAIL_TLS",
    "HANDRAIL_VISIBILITY",
    "HANDRAIL_DATABASE",
    "HANDRAIL_ARCHIVE",
)
"""Settings of another installation: this one has its own broker and index, and no TLS on its loopback addresses."""

_HANDRAIL = (sys.executable, "-m", "handrail.cli.main")


class Parts:
    """Describes the processes; none is started here."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self._folder = folder
        self._broker = broker

    def coordinator(self, address: str, *, keys: Path, index: str, settings: Mapping[str, str]) -> Child:
        """A coordinator on this address, which takes tokens signed with these keys. `index` is where lists are read
        from; empty: nowhere."""
        environment = {"HANDRAIL_JWT_PUBLIC_KEYS": str(keys), "HANDRAIL_VISIBILITY": index, **self._secret(COORDINATOR)}
        return self._part(COORDINATOR, ["coordinator", "--listen", address], {**environment, **settings})

    def visibility(self, address: str) -> Child:
        """Visibility with database and archive in the folder, which serves the index on this address, and purges
        finished flows once they are old enough: it has the archive."""
        environment = {
            "HANDRAIL_DATABASE": f"sqlite:///{self._folder / 'visibility.db'}",
            "HANDRAIL_ARCHIVE": str(self._folder / "archive"),
            "HANDRAIL_RETENTION_NKEY_FILE": str(self._broker.credentials.user(RETENTION).nkey),
            **self._secret(VISIBILITY),
        }
        return self._part(VISIBILITY, ["visibility", "--visibility-listen", address], environment)

    def console(self, address: str, *, coordinator: str, identities: Path) -> Child:
        """The console on this address, in which everybody on this machine may act as the people of the folder. It is no
        user of the broker, and takes no settings of another console."""
        words = ["console", "--console-listen", address, "--address", coordinator, "--identities", str(identities)]
        return Child(
            CONSOLE,
            [*_HANDRAIL, *words],
            log=self._folder / "logs" / f"{CONSOLE}.log",
            environment={key: value for key, value in os.environ.items() if not key.startswith("HANDRAIL_")},
        )

    def agent(self, name: str, module: str, environment: Mapping[str, str]) -> Child:
        """An agent, which works in a folder that all agents share."""
        work = self._folder / "work"
        work.mkdir(exist_ok=True)
        path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
        return self._part(name, ["agent", "run", module], {"PYTHONPATH": path, **environment}, work=work)

    def _part(self, name: str, words: list[str], environment: Mapping[str, str], *, work: Path | None = None) -> Child:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
        login = {"HANDRAIL_NATS": self._broker.url, **self._broker.credentials.user(name).environment()}
        return Child(
            name,
            [*_HANDRAIL, *words],
            log=self._folder / "logs" / f"{name}.log",
            environment={**inherited, **login, **environment},
            folder=work,
        )

    def _secret(self, name: str) -> dict[str, str]:
        return {"HANDRAIL_VISIBILITY_SECRET_FILE": str(self._broker.credentials.user(name).visibility_secret)}
