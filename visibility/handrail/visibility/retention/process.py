"""Retention as a part of the process `handrail visibility`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.waiting import cancelled, pause
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.errors import Damaged
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.retention.policy import Policy
from handrail.visibility.retention.retention import Retention, Settings
from handrail.visibility.retention.shelf import Shelf
from handrail.visibility.retention.shelf_mark import ShelfMark

log = logging.getLogger(__name__)

_EVERY = timedelta(seconds=5)
_SOON = timedelta(seconds=0.5)
"""How often an index is looked for that is not made yet: it is not answered from before it has all verdicts."""


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How to connect as the user `retention` (None: nothing is purged), and what may be purged."""

    broker: BusSettings | None = None
    settings: Settings = field(default_factory=lambda: Settings(Policy(None)))


NOTHING_LEAVES = RetentionSettings()


async def retain(
    bus: NatsBus,
    engine: Engine,
    folder: LockedFolder | None,
    settings: RetentionSettings,
    stopping: asyncio.Event,
    mark: ShelfMark | None = None,
) -> None:
    """Takes verdicts into the index, and purges finished flows, until `stopping` is set; nothing without an archive.

    `bus` is that of the user `visibility`; `mark` tells others whether archived flows are missing in the index. Raises
    BROKER_PERMISSION and Damaged.
    """
    if folder is None:
        return
    mark = mark or ShelfMark()
    shelf = Shelf(folder, engine, FlowStore(bus, Catalog(bus)), mark)
    work = [_keep(shelf, mark, stopping)]
    if settings.broker is None:
        log.info("finished flows stay in FLOW: there are no credentials of the broker's user retention")
    else:
        work.append(_purge(settings.broker, folder, engine, shelf, settings.settings, stopping))
    await together(*work)


async def together(*work: Coroutine[object, object, None]) -> None:
    """Runs until all have ended, or one has failed: then the others are cancelled, and its error is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await asyncio.gather(*map(cancelled, tasks))


async def _keep(shelf: Shelf, mark: ShelfMark, stopping: asyncio.Event) -> None:
    said = ""
    while not stopping.is_set():
        wait = _EVERY
        try:
            if not mark.has_all(await shelf.catch_up()):
                wait = _SOON
            said = ""
        except Damaged:
            raise
        except HandrailError as error:
            if error.text != said:
                log.warning("archived flows are missing in the index: %s; trying again", error.text)
            said = error.text
            if error.reason == ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE:
                wait = _SOON
        await pause(stopping, wait)


async def _purge(
    broker: BusSettings,
    folder: LockedFolder,
    engine: Engine,
    shelf: Shelf,
    settings: Settings,
    stopping: asyncio.Event,
) -> None:
    while not stopping.is_set():
        try:
            bus = await NatsBus.connect(broker)
        except BrokerUnavailable as error:
            log.warning("%s; retrying", error.text)
            await pause(stopping, _EVERY)
            continue
        async with bus:
            holder = f"{socket.gethostname()}-{os.getpid()}"
            await Retention(bus, folder, engine, shelf, settings, holder=holder).run(stopping)
