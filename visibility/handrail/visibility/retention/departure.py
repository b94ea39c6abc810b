"""Flows that leave FLOW: judged, compared with the archive, announced, and purged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from importlib.metadata import version
from typing import NamedTuple

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.streams import FLOW, purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import decoded
from handrail.mesh.wire.subjects import flow_filter, is_text
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.errors import ArchiveError, Damaged
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.index.candidates import Candidate
from handrail.visibility.index.rows import rows_of
from handrail.visibility.retention.gate import Handled
from handrail.visibility.retention.looks import Looks, Name, name_of
from handrail.visibility.retention.policy import why_kept

log = logging.getLogger(__name__)

RELEASE = version("handrail")

_AT_ONCE = 8
"""Flows that are judged at the same time."""

_NEAR = 1000
"""If no more messages of the stream lie between two of a flow, on average, the broker takes less to walk them than for
as many requests (docs/scale.md)."""

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


class Look(NamedTuple):
    """What FLOW has of a flow with a verdict: `judged` are the messages that the verdict names."""

    found: Found
    judged: Sequence[RawMessage]


class Departures:
    """Decides which flows leave, and purges them."""

    def __init__(self, bus: NatsBus, store: FlowStore, reader: Reader) -> None:
        self._bus = bus
        self._store = store
        self._looks = Looks(bus, store)
        self._reader = reader

    async def announce(
        self, flow_type: str, some: Sequence[Candidate], *, age: timedelta, gate: Handled
    ) -> list[Verdict]:
        """The verdicts on those that may leave; what could begin them again is recorded. Others stay, and are told.

        Raises Damaged, and what reading and publishing raise.
        """
        stored = await self._looks.messages(Name(flow_type, each.flow_id) for each in some)
        judging = asyncio.Semaphore(_AT_ONCE)

        async def judged(name: Name, messages: Sequence[RawMessage]) -> Verdict | None:
            try:
                async with judging:
                    return await self._judged(name, messages, age=age, gate=gate)
            except HandrailError as error:
                if isinstance(error, Damaged) or not (isinstance(error, ArchiveError) or error.reason in _OF_ONE_FLOW):
                    raise
                log.warning("flow %s stays: %s", name.flow_id, error.text)
                return None

        verdicts = await asyncio.gather(*(judged(name, messages) for name, messages in stored.items()))
        return [each for each in verdicts if each is not None]

    async def unchanged(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Those on which nothing has come since, as the stream's leader says."""
        stored = await self._looks.messages(map(name_of, verdicts))
        return [each for each in verdicts if _last(stored[name_of(each)]) == each.sequences[-1]]

    async def look(self, verdicts: Sequence[Verdict]) -> list[Look]:
        """What the stream's leader has of flows with verdicts. Raises Damaged, and what reading raises."""
        stored = await self._looks.messages(map(name_of, verdicts))
        return [await self._found(each, stored[name_of(each)]) for each in verdicts]

    async def purge(self, verdict: Verdict, judged: Sequence[RawMessage]) -> None:
        """Purges the messages of a flow that are left of those that were judged, and nothing else.

        At once, the broker walks all messages between a flow's first and its last one. If these are many, each message
        is purged by its very subject. What begins the flow goes first: without it, what is left is no flow for any
        reader. After it, no outcome outlives what caused it, so nobody can publish that outcome again. Raises what
        `Bus.request_json` raises.
        """
        walked = judged[-1].sequence - judged[0].sequence
        if walked <= _NEAR * len(judged) or not all(is_text(each.subject) for each in judged):
            await self.purge_at_once(verdict)
            return
        for each in sorted(judged, key=lambda each: (each.sequence != verdict.first, each.sequence)):
            await self._purge(each.subject, each.sequence)

    async def purge_at_once(self, verdict: Verdict) -> None:
        """Purges a flow's messages up to the last one that the verdict names. Raises what `Bus.request_json` raises."""
        await self._purge(flow_filter(verdict.flow_type, verdict.flow_id), verdict.sequences[-1])

    async def _purge(self, subject_filter: str, last: int) -> None:
        await self._bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"filter": subject_filter, "seq": last + 1})

    async def _found(self, verdict: Verdict, messages: Sequence[RawMessage]) -> Look:
        if verdict.withdrawn:
            return Look(Found.CHANGED, ())
        judged = [each for each in messages if each.sequence <= verdict.sequences[-1]]
        if not judged:
            return Look(Found.LATE if messages else Found.NOTHING, ())
        # Without its first event it is no flow any more: a purge was cut off.
        has_begun = any(each.sequence == verdict.first for each in judged)
        has_ended = _last(messages) == verdict.sequences[-1] or not has_begun
        is_same = {each.sequence for each in judged} <= set(verdict.sequences)
        as_judged = has_ended and is_same and await self._is_archived(judged)
        return Look(Found.JUDGED if as_judged else Found.CHANGED, judged)

    async def _is_archived(self, messages: Sequence[RawMessage]) -> bool:
        try:
            await asyncio.to_thread(self._compare, messages)
        except Damaged:
            raise
        except ArchiveError as error:
            log.warning("%s", error.text)
            return False
        return True

    async def _judged(
        self, name: Name, messages: Sequence[RawMessage], *, age: timedelta, gate: Handled
    ) -> Verdict | None:
        if not messages:
            return None
        flow = await self._store.fold(*name, decoded(messages))
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


def _last(messages: Sequence[RawMessage]) -> int:
    return messages[-1].sequence if messages else 0


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
