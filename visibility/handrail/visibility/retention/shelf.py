"""Takes the archive's verdicts into the index, and folds archived flows that the index does not have."""

from __future__ import annotations

import asyncio
from itertools import islice

from sqlalchemy import Engine

from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.instants import from_nanoseconds
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History, decoded
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import numbered
from handrail.visibility.index.archived import Archived, ArchivedWriter
from handrail.visibility.index.rows import FlowRows, rows_of
from handrail.visibility.retention.shelf_mark import ShelfMark

_AT_ONCE = 500
"""Verdicts of one transaction."""


class Shelf:
    """Keeps the index up to date with the verdicts of an archive, and says on a mark how far it is."""

    def __init__(self, folder: Folder, engine: Engine, store: FlowStore, mark: ShelfMark | None = None) -> None:
        self._folder = folder
        self._reader = Reader(folder)
        self._writer = ArchivedWriter(engine)
        self._store = store
        self._mark = mark or ShelfMark()
        self._turn = asyncio.Lock()
        self.count: int | None = None
        """How many verdicts their writer has stored; None if nobody writes. What follows these may not last."""

    async def catch_up(self) -> int:
        """Takes all verdicts that the index does not have, and returns how many it has then; 0 without an index.

        Raises INDEX_UNAVAILABLE, Damaged, NoRecord, and what reading templates raises.
        """
        async with self._turn:
            return await self._catch_up()

    async def withdraw(self, number: int, verdict: Verdict) -> None:
        """Has the index show a flow as it is in FLOW, if it took this verdict. Raises INDEX_UNAVAILABLE, and what
        reading raises.
        """
        async with self._turn:
            await asyncio.to_thread(self._writer.withdraw, number, verdict, await self._rows_now(verdict))

    async def _catch_up(self) -> int:
        while True:
            taken = await asyncio.to_thread(self._writer.taken)
            if taken is None:
                return 0
            some = await asyncio.to_thread(self._next, taken)
            if not some:
                self._mark.reached(taken)
                return taken
            lacking = {each.number: each for each in await asyncio.to_thread(self._writer.lacking, some)}
            archived = [
                Archived(number, verdict, await self._rows(verdict) if number in lacking else None)
                for number, verdict in some
            ]
            await asyncio.to_thread(self._writer.put, archived, after=taken)

    def _next(self, after: int) -> list[tuple[int, Verdict]]:
        most = _AT_ONCE if self.count is None else min(_AT_ONCE, max(0, self.count - after))
        return list(islice(numbered(self._folder, after=after, withdrawn=True), most))

    async def _rows(self, verdict: Verdict) -> FlowRows | None:
        """The rows of a flow, from the archive; None if it was erased, or can't be folded any more."""
        if verdict.erased or verdict.withdrawn:
            return None
        records = await asyncio.to_thread(self._reader.read_many, verdict.sequences)
        return await self._folded(verdict, decoded([raw(each) for each in records]))

    async def _rows_now(self, verdict: Verdict) -> FlowRows | None:
        """The rows of a flow, from FLOW; None if it can't be folded."""
        last = await self._store.newest(verdict.flow_type, verdict.flow_id)
        messages = await self._store.messages(verdict.flow_type, verdict.flow_id, at_least=last)
        return await self._folded(verdict, decoded(messages)) if messages else None

    async def _folded(self, verdict: Verdict, history: History) -> FlowRows | None:
        try:
            return rows_of(await self._store.fold(verdict.flow_type, verdict.flow_id, history), history)
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND:
                raise
            return None


def raw(record: Record) -> RawMessage:
    """An archived message as the stream gave it."""
    time = from_nanoseconds(record.time_ns)
    return RawMessage(record.subject, record.body, record.sequence, time)
