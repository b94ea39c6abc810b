"""A coordinator process on a broker with recorded events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from handrail.cli.dev.processes import Child, free_port, stop, wait_until
from handrail.cli.probe import serves
from handrail.cli.transport import Transport
from handrail.coordinator.api.dev_tokens import ensure_keys, mint
from tests.support.accounts import seed_file
from tests.support.nats_server import NatsServer

_START_SECONDS = 120.0
_PROBE = timedelta(seconds=1)
_GRACE = 12.0


class Coordinator(NamedTuple):
    """A process that serves, and tokens of two people of finance."""

    pid: int
    address: str
    tokens: tuple[str, str]


@contextmanager
def coordinating(server: NatsServer, folder: Path, **settings: str) -> Iterator[Coordinator]:
    """Runs a coordinator with these settings; use it from the main thread."""
    keys, address = ensure_keys(folder / "keys"), f"127.0.0.1:{free_port()}"
    child = Child(
        "coordinator",
        [sys.executable, "-m", "handrail.cli.main", "coordinator", "--listen", address],
        log=folder / "coordinator.log",
        environment={
            **{name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")},
            "HANDRAIL_NATS": server.url,
            "HANDRAIL_NATS_NKEY_FILE": str(seed_file(server, "coordinator")),
            "HANDRAIL_JWT_PUBLIC_KEYS": str(keys.public),
            **settings,
        },
    )
    child.start()
    try:
        with Transport(address).channel() as channel:
            wait_until(lambda: serves(channel, _PROBE), child, seconds=_START_SECONDS)
        people = [mint(keys.private, name, roles=("finance", "viewer")) for name in ("anna", "ben")]
        yield Coordinator(child.pid, address, (people[0], people[1]))
    finally:
        stop([child], grace=_GRACE)
