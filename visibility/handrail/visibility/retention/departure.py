"""Flows that leave FLOW: judged, compared with the archive, announced, and purged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from importlib.metadata import version

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.streams import FLOW, purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import decoded
from handrail.mesh.wire.subjects import flow_filter
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.errors import ArchiveError, Damaged
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.index.candidates import Candidate
from handrail.visibility.index.rows import rows_of
from handrail.visibility.retention.gate import Handled
from handrail.visibility.retention.policy import why_kept

log = logging.getLogger(__name__)

RELEASE = version("handrail")

_AT_ONCE = 8
"""Flows that are read at the same time."""

_OF_ONE_FLOW = (
    ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,
    ErrorReason.ERROR_REASON_FLOW_NOT_FOUND,
    ErrorReason.ERROR_REASON_FLOW_ARCHIVED,
)


class Found(Enum):
    """What FLOW has of a flow with a verdict."""

    NOTHING = "nothing"
    LATE = "what came after the purge"
    JUDGED = "what was judged, and nothing that goes on with it"
    CHANGED = "other messages than those that were judged"


class Departures:
    """Decides which flows leave, and purges them."""

    def __init__(self, bus: NatsBus, store: FlowStore, reader: Reader) -> None:
        self._bus = bus
        self._store = store
        self._reader = reader

    async def announce(
        self, flow_type: str, some: Sequence[Candidate], *, age: timedelta, gate: Handled
    ) -> list[Verdict]:
        """The verdicts on those that may leave; what could begin them again is recorded. Others stay, and are told.

        Raises Damaged, and what reading and publishing raise.
        """
        reading = asyncio.Semaphore(_AT_ONCE)

        async def judged(flow_id: str) -> Verdict | None:
            try:
                async with reading:
                    return await self._judged(flow_type, flow_id, age=age, gate=gate)
            except HandrailError as error:
                if isinstance(error, Damaged) or not (isinstance(error, ArchiveError) or error.reason in _OF_ONE_FLOW):
                    raise
                log.warning("flow %s stays: %s", flow_id, error.text)
                return None

        return [each for each in await asyncio.gather(*(judged(each.flow_id) for each in some)) if each is not None]

    async def unchanged(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """Those on which nothing has come since, as the stream's leader says."""
        return [
            each for each in verdicts if await self._store.newest(each.flow_type, each.flow_id) == each.sequences[-1]
        ]

    async def found(self, verdict: Verdict) -> Found:
        """What the stream's leader has of a flow with a verdict. Raises Damaged, and what reading raises."""
        last = await self._store.newest(verdict.flow_type, verdict.flow_id)
        if not last:
            return Found.NOTHING
        messages = await self._store.messages(verdict.flow_type, verdict.flow_id, at_least=last)
        judged = [each for each in messages if each.sequence <= verdict.sequences[-1]]
        if not judged:
            return Found.LATE
        # Without its first event it is no flow any more: a purge was cut off.
        has_ended = messages[-1].sequence == verdict.sequences[-1] or judged[0].sequence > verdict.first
        is_same = {each.sequence for each in judged} <= set(verdict.sequences)
        return Found.JUDGED if has_ended and is_same and await self._is_archived(judged) else Found.CHANGED

    async def purge(self, verdict: Verdict) -> None:
        """Purges a flow's messages, and nothing that came after the verdict. Raises what `Bus.request_json` raises."""
        wanted = flow_filter(verdict.flow_type, verdict.flow_id)
        until = {"filter": wanted, "seq": verdict.sequences[-1] + 1}
        await self._bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", until)

    async def _is_archived(self, messages: Sequence[RawMessage]) -> bool:
        try:
            await asyncio.to_thread(self._compare, messages)
        except Damaged:
            raise
        except ArchiveError as error:
            log.warning("%s", error.text)
            return False
        return True

    async def _judged(self, flow_type: str, flow_id: str, *, age: timedelta, gate: Handled) -> Verdict | None:
        last = await self._store.newest(flow_type, flow_id)
        messages = await self._store.messages(flow_type, flow_id, at_least=last)
        if not messages or messages[-1].sequence != last:
            return None
        flow = await self._store.fold(flow_type, flow_id, decoded(messages))
        if flow.first is None or why_kept(flow, age=age, now=gate.now, gate=gate.sequence):
            return None
        await asyncio.to_thread(self._compare, messages)
        await purged.record(self._bus, flow.first)
        return verdict_on(flow, messages)

    def _compare(self, messages: Sequence[RawMessage]) -> None:
        """Raises ArchiveError unless the archive gives back exactly these messages."""
        records = self._reader.read_many([each.sequence for each in messages])
        for message, record in zip(messages, records, strict=True):
            if (message.subject, message.body) != (record.subject, record.body):
                raise ArchiveError(f"the archive has another message at sequence {message.sequence} than FLOW")


def verdict_on(flow: Flow, messages: Sequence[RawMessage]) -> Verdict:
    """What this release says of a flow with these messages."""
    row = rows_of(flow, ()).flow or {}
    return Verdict(
        sequences=tuple(each.sequence for each in messages),
        summary={name: value for name, value in row.items() if name != "verdict"},
        void=_void(flow),
        release=RELEASE,
    )


def _void(flow: Flow) -> Mapping[int, str]:
    return {
        sequence: f"{ErrorReason.Name(each.reason)}: {each.text}" if each.reason else each.text
        for sequence, each in flow.void.items()
    }
