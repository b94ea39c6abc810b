"""Handrail's processes: broker, coordinators and agents, by name."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from bench.figures import SERVER
from bench.meter import Processes
from handrail.cli.dev.package import load_package
from handrail.cli.dev.processes import Child, free_port, stop, wait_until
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.cli.probe import serves
from handrail.cli.transport import Transport
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.wire.subjects import COORDINATOR

_ROOM = dict.fromkeys(
    ("HANDRAIL_MAX_CALLS", "HANDRAIL_MAX_CALLS_PER_CALLER", "HANDRAIL_MAX_STREAMS", "HANDRAIL_MAX_STREAMS_PER_CALLER"),
    "5000",
)
"""One caller makes all calls of the benchmark."""

_START_SECONDS = 60.0
_PROBE = timedelta(seconds=1)
_GRACE = 12.0


class Installation:
    """A `DevStack` with any number of coordinators. Use it as a context, from the main thread."""

    def __init__(self, folder: Path, package: str, *, sync_always: bool, coordinators: int = 1) -> None:
        options = DevOptions(
            folder=folder / "handrail",
            package=load_package(package),
            sync_always=sync_always,
            visibility=False,
            settings=_ROOM,
        )
        self._stack = DevStack(options)
        self._number = coordinators
        self._more: list[Child] = []

    def __enter__(self) -> Installation:
        try:
            self._stack.start()
            for nth in range(2, self._number + 1):
                self._more.append(self._coordinator(nth))
            self._stack.start_agents()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def address(self) -> str:
        """The address of the first coordinator's API."""
        return self._stack.address

    def token(self, person: str) -> str:
        """A person's token."""
        return self._stack.people.tokens[person]

    def processes(self) -> Processes:
        """All processes; those of several coordinators under one name."""
        stack = self._stack
        return {
            SERVER: [stack.broker.child.pid],
            COORDINATOR: [stack.coordinator.pid, *(child.pid for child in self._more)],
            **{name: [child.pid] for name, child in stack.agents.items()},
        }

    async def connect(self, user: str) -> NatsBus:
        """A bus connected as this user of the broker."""
        settings = BusSettings(servers=(self._stack.nats_url,), name=user)
        return await NatsBus.connect(self._stack.broker.credentials.user(user).login(settings))

    def environment(self, user: str) -> dict[str, str]:
        """The settings with which a process connects as this user of the broker."""
        return {**self._stack.broker.credentials.user(user).environment(), "HANDRAIL_NATS": self._stack.nats_url}

    def _coordinator(self, nth: int) -> Child:
        stack, address = self._stack, f"127.0.0.1:{free_port()}"
        child = Child(
            f"{COORDINATOR}-{nth}",
            [sys.executable, "-m", "handrail.cli.main", "coordinator", "--listen", address],
            log=stack.folder / "logs" / f"coordinator-{nth}.log",
            environment={
                **{name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")},
                **stack.broker.credentials.user(COORDINATOR).environment(),
                "HANDRAIL_NATS": stack.nats_url,
                "HANDRAIL_JWT_PUBLIC_KEYS": str(stack.people.keys.public),
                **_ROOM,
            },
        )
        child.start()
        with Transport(address).channel() as channel:
            wait_until(lambda: serves(channel, _PROBE), child, seconds=_START_SECONDS)
        return child

    def _stop(self) -> None:
        stop(self._more, grace=_GRACE)
        self._stack.stop()
