"""Follows FLOW from where index and archive stand, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.bus.direct_get import parse_time
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.readers import EVERYTHING
from handrail.mesh.streams.reading import IsAbsent, is_stored, nothing_is_known, read_pages
from handrail.mesh.streams.streams import created
from handrail.mesh.waiting import cancelled, pause
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.errors import CannotWrite, Damaged, OtherStream
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.writer import AGE
from handrail.visibility.follow.archiver import Archiver, nanoseconds
from handrail.visibility.follow.helpers import Helpers
from handrail.visibility.follow.indexer import Indexer
from handrail.visibility.follow.intake import Intake, collecting
from handrail.visibility.follow.load import Load
from handrail.visibility.follow.part import FIRST_WAIT, LONGEST_WAIT, Part, together
from handrail.visibility.follow.purged_sequences import PurgedSequences
from handrail.visibility.index.database import Position, begin_anew, check, prepare
from handrail.visibility.index.writer import Writer

log = logging.getLogger(__name__)

_LOOK_AGAIN = timedelta(seconds=5)
"""How often it is looked whether FLOW is still the same stream, and whether something is to be sealed."""


class Stream(NamedTuple):
    """FLOW: when it was created, its last sequence, and when its last message was stored."""

    created: str
    last_sequence: int
    last_time: datetime


class Follower:
    """Keeps an index up to date and, if it is given the folder of one, an archive."""

    def __init__(
        self,
        bus: NatsBus,
        engine: Engine,
        archive: LockedFolder | None = None,
        *,
        age: timedelta = AGE,
        load: Load | None = None,
    ) -> None:
        self._bus = bus
        self._engine = engine
        self._folder = archive
        self._age = age
        self._load = load or Load()
        self._archiver: Archiver | None = None
        self._archive = Part("archive", lambda error: isinstance(error, CannotWrite))
        self._index = Part("index", _is_of_index)
        self._came = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Follows until `stopping` is set. A broker, a database, a stream or a disk that is away is waited for; the
        archive goes on without the database.

        Raises BROKER_PERMISSION if the broker does not let it follow, and Damaged and OtherStream if the archive can't
        be gone on with.
        """
        wait = FIRST_WAIT
        while not stopping.is_set():
            before = self._came
            try:
                await self._follow(stopping)
            except (BrokerPermission, Damaged, OtherStream):
                raise
            except HandrailError as error:
                log.warning("%s; trying again", error.text)
            wait = FIRST_WAIT if self._came > before else min(wait * 2, LONGEST_WAIT)
            await pause(stopping, wait)

    async def _follow(self, stopping: asyncio.Event) -> None:
        """Follows until something fails, FLOW is another stream, or archive or index can be written again."""
        stream = await self._stream()
        archiver = await self._open_archive(stream)
        position = await self._position(stream, is_needed=archiver is None)
        self._archive.begin(works=archiver is not None)
        self._index.begin(works=position is not None)
        starts = [each.covered for each in (archiver,) if each is not None]
        starts += [each.sequence for each in (position,) if each is not None]
        try_index = partial(asyncio.to_thread, check, self._engine, stream.created)
        is_absent = await self._purged(min(starts), archiver)
        pages = read_pages(self._bus, VISIBILITY, after=min(starts), whole=True, is_absent=is_absent)
        async with collecting(pages, self._load) as intake:
            tasks = [
                asyncio.create_task(self._work(intake, archiver, position)),
                asyncio.create_task(stopping.wait()),
                asyncio.create_task(self._until_replaced(stream, archiver)),
                asyncio.create_task(self._index.until_back(try_index)),
            ]
            if archiver is not None:
                tasks.append(asyncio.create_task(self._archive.until_back(archiver.seal_if_due)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        await task
            finally:
                await asyncio.gather(*map(cancelled, tasks))

    async def _purged(self, after: int, archiver: Archiver | None) -> IsAbsent:
        """What the archive knows to be purged, if any of that comes up."""
        if self._folder is None or archiver is None or after >= archiver.mark:
            return nothing_is_known
        purged = await asyncio.to_thread(PurgedSequences.of, self._folder, after=after)
        return purged.has_all

    async def _open_archive(self, stream: Stream) -> Archiver | None:
        """The archive, which keeps what waits in memory as long as the stream is the same."""
        if self._folder is None:
            return None
        kept = self._archiver
        if kept is not None:
            is_same = kept.created == nanoseconds(stream.created)
            if is_same and await kept.is_of(self._bus, stream.last_sequence):
                return kept
            await kept.retire()
            self._archiver = None
        archiver = await Archiver.open(self._folder, FLOW, stream.created, age=self._age)
        if not await archiver.is_of(self._bus, stream.last_sequence):
            held = f"{FLOW} with other messages up to sequence {archiver.mark}"
            given = f"{FLOW} as it was restored from a backup, up to sequence {stream.last_sequence}"
            raise OtherStream(self._folder.path, held=held, given=given)
        self._archiver = archiver
        return archiver

    async def _position(self, stream: Stream, *, is_needed: bool) -> Position | None:
        """What the index covers; None if the database is away, and not needed to go on."""
        try:
            position = await asyncio.to_thread(prepare, self._engine, stream.created)
            if not await self._is_of_stream(position, stream):
                log.warning("%s was restored from a backup: the index begins anew", FLOW)
                position = await asyncio.to_thread(begin_anew, self._engine, stream.created)
            position = await self._without_purged_end(position, stream)
        except HandrailError as error:
            if is_needed or not _is_of_index(error):
                raise
            log.warning("%s; the archive goes on without it", error.text)
            return None
        log.info("the index covers %d of %d messages", position.sequence, stream.last_sequence)
        return position

    async def _without_purged_end(self, position: Position, stream: Stream) -> Position:
        """Moves the position to the end of FLOW if everything behind it was purged: nothing would come to move it."""
        if position.sequence >= stream.last_sequence:
            return position
        following = await self._bus.first_on_leader(FLOW, EVERYTHING, from_sequence=position.sequence + 1)
        if following is not None:
            return position
        end = replace(position, sequence=stream.last_sequence, time=stream.last_time)
        await asyncio.to_thread(Writer(self._engine, position).write, [], sequence=end.sequence, time=stream.last_time)
        return end

    async def _is_of_stream(self, position: Position, stream: Stream) -> bool:
        if position.time is None or position.sequence > stream.last_sequence:
            return position.sequence <= stream.last_sequence
        return await is_stored(self._bus, position.sequence, position.time)

    async def _work(self, intake: Intake, archiver: Archiver | None, position: Position | None) -> None:
        """Works on what comes. The index has everything up to `position`."""
        catalog = Catalog(self._bus)
        indexer = Indexer(FlowStore(self._bus, catalog), Writer(self._engine, position or Position("")))
        helpers = Helpers(self._load, catalog, indexer)
        covered = 0 if position is None else position.sequence
        try:
            while True:
                messages = await intake.next()
                work = []
                if archiver is not None and self._archive.works:
                    work.append(self._archive.do(archiver.take(messages), other=self._index))
                if self._index.works:
                    new = [each for each in messages if each.sequence > covered]
                    work.append(self._index.do(self._fold(new, indexer, helpers), other=self._archive))
                await together(work)
                self._came += len(messages)
        finally:
            indexer.use(None)

    async def _fold(self, messages: Sequence[RawMessage], indexer: Indexer, helpers: Helpers) -> None:
        if not messages:
            return
        await indexer.take(messages)
        left = 0
        if len(messages) >= self._load.many or indexer.has_processes:
            left = (await self._stream()).last_sequence - messages[-1].sequence
            await helpers.adjust(left)
        if left <= self._load.much or not indexer.has_processes:
            await indexer.flush()

    async def _until_replaced(self, before: Stream, archiver: Archiver | None) -> None:
        """Returns once FLOW is another stream than before, or lost messages at its end. Seals meanwhile what is due."""
        last = before.last_sequence
        while True:
            await asyncio.sleep(_LOOK_AGAIN.total_seconds())
            if archiver is not None and self._archive.works:
                await self._archive.do(archiver.seal_if_due(), other=self._index)
            with suppress(BrokerUnavailable):
                stream = await self._stream()
                if stream.created != before.created or stream.last_sequence < last:
                    log.warning("FLOW was replaced or restored")
                    return
                last = stream.last_sequence

    async def _stream(self) -> Stream:
        info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        state = info["state"]
        return Stream(created(info), int(state["last_seq"]), parse_time(str(state["last_ts"])))


def _is_of_index(error: HandrailError) -> bool:
    return error.reason == ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE
