"""Follows FLOW from where index and archive stand, for ever."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.reading import read
from handrail.mesh.waiting import pause
from handrail.visibility.archive.errors import Damaged, OtherStream
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.writer import AGE
from handrail.visibility.follow.archiver import Archiver
from handrail.visibility.follow.indexer import Indexer
from handrail.visibility.follow.intake import Intake, collecting
from handrail.visibility.follow.open_flows import OpenFlows
from handrail.visibility.index.database import begin_anew, prepare
from handrail.visibility.index.writer import Writer

log = logging.getLogger(__name__)

_LOOK_AGAIN = timedelta(seconds=5)
"""How often it is looked whether FLOW is still the same stream."""

_FIRST_WAIT = timedelta(seconds=0.5)
_LONGEST_WAIT = timedelta(seconds=15)


class Stream(NamedTuple):
    """FLOW: when it was created, and its last sequence."""

    created: str
    last_sequence: int


class Follower:
    """Keeps an index up to date and, if it is given the folder of one, an archive."""

    def __init__(
        self, bus: NatsBus, engine: Engine, archive: LockedFolder | None = None, *, age: timedelta = AGE
    ) -> None:
        self._bus = bus
        self._engine = engine
        self._archive = archive
        self._age = age
        self._came = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Follows until `stopping` is set. A broker, a database, a stream or a disk that is away is waited for.

        Raises BROKER_PERMISSION if the broker does not let it follow, and Damaged and OtherStream if the archive can't
        be gone on with.
        """
        wait = _FIRST_WAIT
        while not stopping.is_set():
            before = self._came
            try:
                await self._follow(stopping)
            except (BrokerPermission, Damaged, OtherStream):
                raise
            except HandrailError as error:
                log.warning("%s; trying again", error.text)
            wait = _FIRST_WAIT if self._came > before else min(wait * 2, _LONGEST_WAIT)
            await pause(stopping, wait)

    async def _follow(self, stopping: asyncio.Event) -> None:
        """Follows until something fails, or FLOW is another stream."""
        stream = await self._stream()
        position = await asyncio.to_thread(prepare, self._engine, stream.created)
        if position.sequence > stream.last_sequence:
            # FLOW was restored from a backup: what the index has beyond is not what comes now.
            position = await asyncio.to_thread(begin_anew, self._engine, stream.created)
        log.info("the index covers %d of %d messages", position.sequence, stream.last_sequence)
        archiver = await self._archiver(stream)
        indexer = Indexer(FlowStore(self._bus, Catalog(self._bus)), Writer(self._engine, position), OpenFlows())
        covered = position.sequence if archiver is None else min(position.sequence, archiver.mark)
        async with collecting(read(self._bus, VISIBILITY, after=covered)) as intake:
            ends = [asyncio.create_task(stopping.wait()), asyncio.create_task(self._until_replaced(stream, archiver))]
            working = asyncio.create_task(self._work(intake, indexer, archiver, after=position.sequence))
            try:
                await asyncio.wait({working, *ends}, return_when=asyncio.FIRST_COMPLETED)
                for task in (working, *ends):
                    if task.done():
                        await task
            finally:
                for task in (working, *ends):
                    task.cancel()
                await asyncio.gather(working, *ends, return_exceptions=True)

    async def _archiver(self, stream: Stream) -> Archiver | None:
        if self._archive is None:
            return None
        archiver = await Archiver.open(self._archive, FLOW, stream.created, age=self._age)
        if archiver.mark > stream.last_sequence:
            held, given = f"{FLOW} up to sequence {archiver.mark}", f"{FLOW} that ends with {stream.last_sequence}"
            raise OtherStream(self._archive.path, held=held, given=given)
        return archiver

    async def _work(self, intake: Intake, indexer: Indexer, archiver: Archiver | None, *, after: int) -> None:
        """Works on what comes. The index has everything up to `after`."""
        while True:
            messages = await intake.next()
            if archiver is not None:
                await archiver.take(messages)
            await indexer.take([each for each in messages if each.sequence > after])
            self._came += len(messages)

    async def _until_replaced(self, before: Stream, archiver: Archiver | None) -> None:
        """Returns once FLOW is another stream than before, or lost messages at its end. Seals meanwhile what is due."""
        last = before.last_sequence
        while True:
            await asyncio.sleep(_LOOK_AGAIN.total_seconds())
            if archiver is not None:
                await archiver.seal_if_due()
            with suppress(BrokerUnavailable):
                stream = await self._stream()
                if stream.created != before.created or stream.last_sequence < last:
                    log.warning("FLOW was replaced or restored")
                    return
                last = stream.last_sequence

    async def _stream(self) -> Stream:
        info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        return Stream(str(info["created"]), int(info["state"]["last_seq"]))
