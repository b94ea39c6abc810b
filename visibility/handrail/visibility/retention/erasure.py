"""Erases a flow: from FLOW, from the archive, from the index and from quarantine. Its verdict stays, without words.

`handrail visibility` must not run with the archive meanwhile. After a crash, the same call goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.streams import FLOW, purged
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore, no_flow
from handrail.mesh.streams.history import decoded
from handrail.mesh.streams.stream_walk import oldest_first
from handrail.mesh.streams.streams import created, quarantined_agent
from handrail.v1.audit_pb2 import FlowErased, SegmentRewritten
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.segment_file import opened, read_segment
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import VerdictLog, numbered
from handrail.visibility.follow.archiver import Archiver
from handrail.visibility.index.archived import ArchivedWriter
from handrail.visibility.retention.audit import Audit
from handrail.visibility.retention.departure import Departures, verdict_on
from handrail.visibility.retention.policy import LEAST, why_kept
from handrail.visibility.retention.waiting_room import WAIT

_PAGE = 500


class Erasure:
    """Erases flows, as the broker's user `admin`."""

    def __init__(self, bus: NatsBus, folder: LockedFolder, engine: Engine, *, by: str) -> None:
        self._bus = bus
        self._folder = folder
        self._index = ArchivedWriter(engine)
        self._store = FlowStore(bus, Catalog(bus))
        self._departures = Departures(bus, self._store, Reader(folder))
        self._audit = Audit(bus, folder)
        self._by = by

    async def erase(self, flow_type: str, flow_id: str) -> AsyncIterator[str]:
        """Erases a flow, and yields each step once it is done.

        Raises FLOW_NOT_FOUND, FLOW_BUSY if it is not over or too young, INDEX_UNAVAILABLE, Damaged, CannotWrite, and
        what the broker's answers raise.
        """
        log = await asyncio.to_thread(VerdictLog, self._folder)
        last = await self._store.newest(flow_type, flow_id)
        if last:
            await self._archive(last)
            yield f"FLOW is archived up to sequence {last}"
        number, verdict = await self._verdict(log, flow_type, flow_id, last)
        await self._audit.record()
        await self._departures.purge(verdict)
        yield f"{len(verdict.sequences)} messages are purged from FLOW"
        segments = await asyncio.to_thread(self._rewrite, verdict.sequences)
        yield f"{len(segments)} segments of the archive are rewritten"
        await asyncio.to_thread(log.replace, number, verdict.as_erased())
        await asyncio.to_thread(self._index.erase, verdict.as_erased())
        yield "its rows are removed from the index, but for its status"
        copies = await self._quarantined(flow_type, flow_id)
        yield f"{copies} copies are removed from quarantine"
        await self._record(verdict, segments)
        yield "AUDIT has the record"

    async def _archive(self, last: int) -> None:
        """Archives FLOW up to a sequence, sealed."""
        info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        archiver = await Archiver.open(self._folder, FLOW, created(info), age=timedelta())
        waiting = []
        async for message in oldest_first(self._bus, FLOW, "flow.>", after=archiver.covered):
            if message.sequence > last:
                break
            waiting.append(message)
            if len(waiting) == _PAGE:
                await archiver.take(waiting)
                waiting = []
        await archiver.take(waiting)
        await archiver.seal_if_due()
        await archiver.retire()

    async def _verdict(self, log: VerdictLog, flow_type: str, flow_id: str, last: int) -> tuple[int, Verdict]:
        """The verdict on the flow and its number; stored now if there is none."""
        found = await asyncio.to_thread(self._stored, flow_type, flow_id)
        if found is not None and last in (0, found[1].sequences[-1]):
            return found
        messages = await self._store.messages(flow_type, flow_id, at_least=last)
        if not messages:
            raise no_flow(flow_type, flow_id)
        flow = await self._store.fold(flow_type, flow_id, decoded(messages))
        why = why_kept(flow, age=LEAST, now=datetime.now(UTC), gate=last)
        if why or flow.first is None:
            text = f"{flow_type} flow {flow_id} can't be erased yet: {why}"
            raise HandrailError(ErrorReason.ERROR_REASON_FLOW_BUSY, text, flow_id=flow_id)
        await purged.record(self._bus, flow.first)
        if await purged.recorded(self._bus, flow_type, flow_id) is not None:
            await asyncio.sleep(WAIT.total_seconds())  # a call that begins it may have looked at KEY just now
        verdict = verdict_on(flow, messages)
        return await asyncio.to_thread(log.append, [verdict]), verdict

    def _stored(self, flow_type: str, flow_id: str) -> tuple[int, Verdict] | None:
        """The newest verdict on a flow of this name."""
        found = None
        for number, verdict in numbered(self._folder):
            if (verdict.flow_type, verdict.flow_id) == (flow_type, flow_id):
                found = number, verdict
        return found

    def _rewrite(self, sequences: Sequence[int]) -> list[SegmentRewritten]:
        """Erases messages from the segments that have them. What was rewritten before is told, too."""
        firsts = self._folder.firsts()
        done = []
        for first, some in groupby(sequences, key=lambda each: max(x for x in firsts if x <= each)):
            rewritten = rewrite(self._folder, first, list(some))
            path = self._folder.file(first)
            with opened(path) as file:
                segment = read_segment(file, path.name)
            before = segment.footer.rewrite
            earlier = before.replaces[-1] if before is not None else segment.digest
            replaced = earlier if rewritten is None else rewritten.replaced
            done.append(SegmentRewritten(first=first, replaced=replaced, digest=segment.digest))
        return done

    async def _quarantined(self, flow_type: str, flow_id: str) -> int:
        """Deletes the copies of the flow's messages in quarantine, and has the broker overwrite them."""
        deleted = 0
        for stream in (await self._bus.request_json("$JS.API.STREAM.NAMES"))["streams"]:
            if quarantined_agent(stream) is None:
                continue
            async for message in oldest_first(self._bus, stream, f"quarantine.{flow_type}.{flow_id}.>"):
                request = {"seq": message.sequence, "no_erase": False}
                await self._bus.request_json(f"$JS.API.STREAM.MSG.DELETE.{stream}", request)
                deleted += 1
        return deleted

    async def _record(self, verdict: Verdict, segments: Sequence[SegmentRewritten]) -> None:
        said = FlowErased(
            archive=self._audit.archive,
            flow_type=verdict.flow_type,
            flow_id=verdict.flow_id,
            first=verdict.first,
            by=self._by,
            messages=len(verdict.sequences),
            segments=segments,
        )
        subject = f"audit.erasure.{verdict.flow_type}.{verdict.flow_id}.{verdict.first}"
        with suppress(AlreadyStored):
            await self._bus.publish(subject, said.SerializeToString())
