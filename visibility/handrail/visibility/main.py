"""The process `handrail visibility`: follows flows, and serves their index, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from handrail.mesh import collector, telemetry
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.waiting import pause
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.follow.follower import Follower
from handrail.visibility.follow.load import Load
from handrail.visibility.index.database import open_engine
from handrail.visibility.retention.process import NOTHING_LEAVES, RetentionSettings, retain, together
from handrail.visibility.retention.shelf_mark import ShelfMark
from handrail.visibility.serve.server import IndexServer, ServeSettings

log = logging.getLogger(__name__)

_CONNECT_AGAIN = timedelta(seconds=1)


async def run_visibility(
    broker: BusSettings,
    database: str,
    archive: Path | None = None,
    *,
    load: Load | None = None,
    serve: ServeSettings | None = None,
    retention: RetentionSettings = NOTHING_LEAVES,
    on_ready: Callable[[int], None] = lambda port: None,
) -> None:
    """Keeps the index in `database` and the archive in a folder up to date until SIGTERM or SIGINT, and serves the
    index. `on_ready` is called with the port that it is served on.

    It waits for a broker or database that is away. Raises INDEX_UNAVAILABLE if the address of the database is wrong,
    BROKER_PERMISSION, ArchiveInUse, Damaged and OtherStream, OSError if the archive's folder can't be created or the
    address to serve on is taken, and ValueError for settings of the server that can't be used.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    engine = open_engine(database)
    folder = None if archive is None else LockedFolder(archive)
    telemetry.configure("visibility")
    try:
        bus = await _connect(broker, stopping)
        if bus is None:
            return
        async with bus:
            collector.calm()
            async with AsyncExitStack() as served:
                mark = ShelfMark()
                if serve is not None:
                    server = IndexServer(engine, bus, serve, folder, mark=None if folder is None else mark)
                    on_ready(await server.start())
                    served.push_async_callback(server.stop)
                follower = Follower(bus, engine, folder, load=load)
                await together(follower.run(stopping), retain(bus, engine, folder, retention, stopping, mark))
    finally:
        if folder is not None:
            folder.close()
        engine.dispose()
        telemetry.shutdown()


async def _connect(broker: BusSettings, stopping: asyncio.Event) -> NatsBus | None:
    """Connects as soon as the broker answers; returns None if told to stop first."""
    while not stopping.is_set():
        try:
            return await NatsBus.connect(broker)
        except BrokerUnavailable as error:
            log.warning("%s; retrying", error.text)
            await pause(stopping, _CONNECT_AGAIN)
    return None
