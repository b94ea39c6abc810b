"""`python -m bench.at_scale.keeper FOLDER BROKER SEEDS RATE`: archive, index and retention as a process, until SIGTERM.

Whoever records beside it takes no time from it, as in an installation. SEEDS is a folder with the nkey seeds of users
of the broker. At most RATE flows are purged in a second.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench.at_scale.kept import keeping
from handrail.mesh.bus import BusSettings
from handrail.mesh.permissions import RETENTION, VISIBILITY
from handrail.mesh.wire.subjects import COORDINATOR
from tests.support.accounts import seed_file
from tests.support.nats_server import NatsServer, die_with_parent

_SECONDS = 60


@contextmanager
def kept_by_a_process(server: NatsServer, folder: Path, *, rate: int) -> Iterator[int]:
    """Runs the process while the block runs, and gives its id. `keeper.log` in the folder has what it says."""
    seeds = {seed_file(server, user).parent for user in (COORDINATOR, VISIBILITY, RETENTION)}.pop()
    words = [sys.executable, "-m", "bench.at_scale.keeper", str(folder), server.url, str(seeds), str(rate)]
    with (folder / "keeper.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield process.pid
        assert process.poll() is None, f"it ended:\n{(folder / 'keeper.log').read_text()[-2000:]}"
    finally:
        process.terminate()
        process.wait(_SECONDS)


async def _keep(folder: Path, url: str, seeds: Path, rate: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    def login(user: str) -> BusSettings:
        return BusSettings(servers=(url,), name=user, nkey_seed_file=seeds / user)

    async with keeping(login, folder, rate=rate) as (_, _, retention):
        await retention.run(stopping)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _folder, _url, _seeds, _rate = sys.argv[1:]
    uvloop.run(_keep(Path(_folder), _url, Path(_seeds), int(_rate)))
