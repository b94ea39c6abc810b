"""Erases a flow: from FLOW, from the archive, from the index and from quarantine. Its verdict stays, without words.

`handrail visibility` must not run with the archive meanwhile. After a crash, the same call goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import groupby

from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.flow import Flow
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
from handrail.visibility.index.database import require
from handrail.visibility.retention.audit import Audit
from handrail.visibility.retention.departure import Departures, verdict_on
from handrail.visibility.retention.gate import handled
from handrail.visibility.retention.policy import LEAST, why_kept
from handrail.visibility.retention.shelf import raw
from handrail.visibility.retention.waiting_room import WAIT

_PAGE = 500

_BEGINS_NOTHING = (ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, ErrorReason.ERROR_REASON_FLOW_ARCHIVED)
_CLAIMS = (ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,)


class Erasure:
    """Erases flows, as the broker's user `admin`."""

    def __init__(self, bus: NatsBus, folder: LockedFolder, engine: Engine, *, by: str) -> None:
        self._bus = bus
        self._folder = folder
        self._engine = engine
        self._index = ArchivedWriter(engine)
        self._store = FlowStore(bus, Catalog(bus))
        self._reader = Reader(folder)
        self._departures = Departures(bus, self._store, self._reader)
        self._audit = Audit(bus, folder)
        self._by = by

    async def erase(self, flow_type: str, flow_id: str) -> AsyncIterator[str]:
        """Erases a flow, and yields each step once it is done. All flows that had this id go with it.

        Raises FLOW_NOT_FOUND, FLOW_BUSY if it is not over, too young, or goes on meanwhile, INDEX_UNAVAILABLE, Damaged,
        CannotWrite, and what the broker's answers raise.
        """
        await asyncio.to_thread(require, self._engine)
        log = await asyncio.to_thread(VerdictLog, self._folder)
        last = await self._store.newest(flow_type, flow_id)
        await self._archive(last)
        yield f"FLOW is archived up to sequence {last}"
        sequences = await asyncio.to_thread(self._archived, flow_type, flow_id)
        verdicts = await self._verdicts(log, flow_type, flow_id, last=last, archived=sequences)
        await self._audit.record()
        erased = _erased(verdicts, sequences)
        newest = erased[_newest(erased)]
        await self._departures.purge_at_once(newest)
        yield f"{len(newest.sequences)} messages are purged from FLOW"
        for number, verdict in erased.items():  # before the archive: from now on nobody reads there what is missing
            await asyncio.to_thread(log.replace, number, verdict)
        segments = await asyncio.to_thread(self._rewrite, newest.sequences)
        yield f"{len(segments)} segments of the archive are rewritten"
        for verdict in erased.values():
            await asyncio.to_thread(self._index.erase, verdict)
        yield "its rows are removed from the index, but for its status"
        copies = await self._quarantined(flow_type, flow_id)
        yield f"{copies} copies are removed from quarantine"
        await self._record(newest, segments)
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

    def _archived(self, flow_type: str, flow_id: str) -> list[int]:
        """The sequences of all messages that the archive has of a flow, also of those that came late."""
        begins = f"flow.{flow_type}.{flow_id}."
        return [each.sequence for each in self._reader.iterate() if each.subject.startswith(begins)]

    async def _verdicts(
        self, log: VerdictLog, flow_type: str, flow_id: str, *, last: int, archived: Sequence[int]
    ) -> dict[int, Verdict]:
        """The verdicts on the flow by their numbers; one is stored now if there is none on what FLOW has.

        If FLOW lacks the first event, what it has came late, and is no reason to judge again.
        """
        stored = await asyncio.to_thread(self._stored, flow_type, flow_id)
        is_judged = any(not each.withdrawn for each in stored.values())
        if is_judged and last == stored[_newest(stored)].sequences[-1]:
            return stored
        messages = await self._store.messages(flow_type, flow_id, at_least=last) if last else ()
        flow = await self._begun(flow_type, flow_id, messages, is_known=is_judged)
        if flow is not None:
            await self._require_over(flow)
        elif is_judged:
            return stored
        else:
            records = await asyncio.to_thread(self._reader.read_many, archived)
            messages = [raw(each) for each in records]
            flow = await self._begun(flow_type, flow_id, messages, is_known=False)
            if flow is None:
                raise no_flow(flow_type, flow_id)
        verdict = verdict_on(flow, messages)
        return {**stored, await asyncio.to_thread(log.append, [verdict]): verdict}

    async def _begun(
        self, flow_type: str, flow_id: str, messages: Sequence[RawMessage], *, is_known: bool
    ) -> Flow | None:
        """The flow of these messages; None if they do not begin one. They may claim a template that never was."""
        try:
            flow = await self._store.fold(flow_type, flow_id, decoded(messages))
        except HandrailError as error:
            if error.reason in (*_BEGINS_NOTHING, *(_CLAIMS if is_known else ())):
                return None
            raise
        return None if flow.first is None else flow

    async def _require_over(self, flow: Flow) -> None:
        """Records that the flow is about to be purged. Raises FLOW_BUSY if it may not be, or goes on meanwhile."""
        gate = await handled(self._bus)
        why = why_kept(flow, age=LEAST, now=gate.now, gate=gate.sequence)
        if why or flow.first is None:
            raise _busy(flow, why)
        await purged.record(self._bus, flow.first)
        if await purged.recorded(self._bus, flow.flow_type, flow.flow_id) is not None:
            await asyncio.sleep(WAIT.total_seconds())  # a call that begins it may have looked at KEY just now
        if await self._store.newest(flow.flow_type, flow.flow_id) != flow.last_sequence:
            raise _busy(flow, "something came to it meanwhile")

    def _stored(self, flow_type: str, flow_id: str) -> dict[int, Verdict]:
        """The verdicts on flows of this name, by their numbers; withdrawn ones, too: they have words."""
        wanted = (flow_type, flow_id)
        verdicts = numbered(self._folder, withdrawn=True)
        return {number: each for number, each in verdicts if (each.flow_type, each.flow_id) == wanted}

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
        place = f"{verdict.first}.{verdict.sequences[-1]}"  # what comes late may be erased later
        subject = f"audit.erasure.{verdict.flow_type}.{verdict.flow_id}.{place}"
        with suppress(AlreadyStored):
            await self._bus.publish(subject, said.SerializeToString())


def _erased(verdicts: Mapping[int, Verdict], sequences: Iterable[int]) -> dict[int, Verdict]:
    """The verdicts as they may stay; the newest one names all messages, so that a crash forgets none."""
    newest = _newest(verdicts)
    everything = tuple(sorted({*sequences, *(each for verdict in verdicts.values() for each in verdict.sequences)}))
    erased = {number: verdict.as_erased() for number, verdict in verdicts.items()}
    return {**erased, newest: replace(erased[newest], sequences=everything)}


def _newest(verdicts: Mapping[int, Verdict]) -> int:
    """The number of the newest verdict that holds."""
    return max(number for number, each in verdicts.items() if not each.withdrawn)


def _busy(flow: Flow, why: str) -> HandrailError:
    text = f"{flow.flow_type} flow {flow.flow_id} can't be erased yet: {why}"
    return HandrailError(ErrorReason.ERROR_REASON_FLOW_BUSY, text, flow_id=flow.flow_id)
