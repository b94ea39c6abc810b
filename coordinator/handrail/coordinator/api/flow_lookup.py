"""Finds a flow by an id alone, and reads it so that the caller's own writes are included.

What the current caller may not read is not found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.qualified_id import parsed
from handrail.coordinator.decide.grants import EVERY_TYPE
from handrail.coordinator.lists.archive import LONGEST, Archive, Archived
from handrail.coordinator.lists.index import Unavailable
from handrail.coordinator.reconcile.flows_in_hand import FlowsInHand
from handrail.index.v1.index_service_pb2 import Scope
from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.streams import FLOW, purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.outcomes import readable
from handrail.mesh.streams.stream_walk import listed_subjects
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, parse
from handrail.v1.decision_pb2 import ActRequested
from handrail.v1.error_reason_pb2 import ErrorReason

_ACT_REQUESTED = ActRequested.DESCRIPTOR.full_name
_ELSEWHERE = "the archive of this coordinator's visibility does not have it"


@dataclass(frozen=True, slots=True)
class Found:
    """A flow that was found, and the sequence that a read of it must reach."""

    flow_type: str
    flow_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Part(Found):
    """A message of a flow that was found: `own_id` is its id within the flow."""

    own_id: str


class InArchive(HandrailError):
    """FLOW_ARCHIVED, with what the archive says of the flow."""

    def __init__(self, archived: Archived) -> None:
        error = purged.archived(archived.summary.flow_type, archived.summary.flow_id)
        super().__init__(error.reason, error.text, **error.metadata)
        self.archived = archived


class Finder:
    """Asks the stream's leader for positions, then reads from any replica that is at least as new. What FLOW does not
    have is looked for in the archive, if there is one.
    """

    def __init__(
        self, bus: Bus, store: FlowStore, flows: FlowsInHand | None = None, archive: Archive | None = None
    ) -> None:
        self._bus = bus
        self._store = store
        self._flows = flows
        self._archive = archive

    async def flow(self, flow_id: str) -> Found:
        """Finds a flow and its newest message; raises FLOW_NOT_FOUND, FLOW_ARCHIVED, or MISSING_ROLE.

        The flow's type is that of its first event; other messages published under its id do not hide it.
        """
        found = await self._flow(flow_id)
        if found is None:
            raise await self.gone("*", flow_id, no_flow(flow_id))
        authorization.require_on(found.flow_type, no_flow(flow_id))
        return found

    async def proposal(self, approval_id: str) -> Part:
        """Finds the flow of an approval; raises APPROVAL_NOT_FOUND, FLOW_ARCHIVED, or MISSING_ROLE."""
        return await self._part(approval_id, f"{Kind.PROPOSAL}.*.{{}}.>", no_approval(approval_id))

    async def votable(self, approval_id: str) -> Part:
        """Finds the flow of an approval like `proposal`, without asking the broker if the flow is in hand.

        Only for calls that append to the flow: the broker refuses an append to an old state.
        """
        part = parsed(approval_id)
        hand = None if part is None or self._flows is None else self._flows.get((part.flow_type, part.flow_id))
        if part is None or hand is None or part.own_id not in hand.flow.proposals:
            return await self.proposal(approval_id)
        authorization.require_on(part.flow_type, no_approval(approval_id))
        return Part(part.flow_type, part.flow_id, hand.flow.last_sequence, part.own_id)

    async def act(self, act_id: str) -> Part:
        """Finds the flow of an act; raises ACT_NOT_FOUND, FLOW_ARCHIVED, or MISSING_ROLE."""
        return await self._part(act_id, f"{Kind.DECISION}.{COORDINATOR}.{{}}.{_ACT_REQUESTED}", no_act(act_id))

    async def fold(self, flow_id: str, history: Sequence[Recorded]) -> Flow:
        """Folds `history` or a part of it; raises FLOW_NOT_FOUND if it is empty, or TEMPLATE_NOT_FOUND."""
        if not history:
            raise HandrailError(
                ErrorReason.ERROR_REASON_FLOW_NOT_FOUND,
                f"flow {flow_id} has no readable message, or had none at the requested time",
                flow_id=flow_id,
            )
        return await self._store.fold(history[0].address.flow_type, flow_id, history)

    async def load_found(self, found: Found) -> Flow:
        """Reads the current state of a flow that was found; raises FLOW_NOT_FOUND or TEMPLATE_NOT_FOUND."""
        history = await self._store.read(found.flow_type, found.flow_id, at_least=found.sequence)
        return await self.fold(found.flow_id, history)

    async def gone(self, flow_type: str, flow_id: str, missing: HandrailError) -> HandrailError:
        """Says what became of a flow of which FLOW has nothing; `missing`: it never began, as far as anybody knows.

        The type may be `*`. Returns FLOW_ARCHIVED, as InArchive if the archive can be read, and INDEX_UNAVAILABLE if
        only the archive could tell. Raises MISSING_ROLE, ARCHIVE_DAMAGED, and what reading KEY raises.
        """
        archived = await self._in_archive(flow_type.removeprefix("*"), flow_id)
        if isinstance(archived, Archived):
            authorization.require_on(archived.summary.flow_type, missing)
            return InArchive(archived)
        known = await purged.recorded(self._bus, flow_type, flow_id)
        if known is not None:
            authorization.require_on(known.flow_type, missing)
            return purged.archived(known.flow_type, flow_id, f"it can't be shown now: {archived}")
        is_told = self._archive is None or not self._archive.is_there or archived == _ELSEWHERE
        if is_told or not await purged.may_be_purged(self._bus, flow_type, flow_id):
            return missing
        return HandrailError(
            ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE,
            f"flow {flow_id} is not in the stream FLOW, and whether the archive has it can't be told: {archived}",
            flow_id=flow_id,
        )

    async def _flow(self, flow_id: str) -> Found | None:
        newest, begun = await asyncio.gather(
            self._newest(f"flow.*.{flow_id}.>"),
            self._subjects(f"flow.*.{flow_id}.{Kind.EVENT}.*.{ids.start_id(flow_id)}.>"),
        )
        if newest is None:
            return None
        found = _found(newest)
        begins = await self._beginning(begun)
        if {parse(subject).flow_type for subject in begins} <= {found.flow_type}:
            return found
        first = await self._first(begins)
        if first is None or first.flow_type == found.flow_type:
            return found
        newest = await self._newest(f"flow.{first.flow_type}.{flow_id}.>")
        return None if newest is None else _found(newest)

    async def _in_archive(self, flow_type: str, flow_id: str) -> Archived | str:
        """What the archive says of a flow, or why it says nothing. The type may be empty."""
        if self._archive is None or not self._archive.is_there:
            return "this coordinator has no visibility to read it from (--visibility)"
        try:
            found = await self._archive.find(flow_id, flow_type, _readable_types(), time_left(LONGEST))
        except Unavailable as error:
            return error.why
        return found or _ELSEWHERE

    async def _part(self, text: str, subject: str, missing: HandrailError) -> Part:
        """Finds a message by an id that names its flow; `subject` has a place for the message's own id."""
        part = parsed(text)
        if part is None:
            raise missing
        authorization.require_on(part.flow_type, missing)
        newest = await self._newest(f"flow.{part.flow_type}.{part.flow_id}.{subject.format(part.own_id)}")
        if newest is None:
            raise await self.gone(part.flow_type, part.flow_id, missing)
        return Part(part.flow_type, part.flow_id, newest.sequence, part.own_id)

    async def _beginning(self, subjects: Sequence[str]) -> list[str]:
        """Returns the subjects of messages that may begin a flow. What no known template says, a newer one may."""
        if not all(self._begins(subject) for subject in subjects):
            await self._store.catalog.refresh_from_leader()
        return [subject for subject in subjects if self._begins(subject)]

    async def _first(self, subjects: Sequence[str]) -> Found | None:
        """Finds the oldest readable message on these subjects: what is published later under the same ids, in another
        flow type, hides nothing. Subjects of types that the caller may not read don't count if there are others.
        """
        caller = authorization.caller_if_known()
        mine = [each for each in subjects if caller is None or caller.reads(parse(each).flow_type)] or subjects
        messages = await asyncio.gather(*(self._newest(subject) for subject in mine))
        found = [_found(message) for message in messages if message is not None and readable(message) is not None]
        return min(found, key=lambda each: each.sequence, default=None)

    def _begins(self, subject: str) -> bool:
        """Tells whether a message on this subject may begin a flow, by any version of its type."""
        address = _parsed(subject)
        return address is not None and any(
            address.message_type in each.starts_with and address.agent in (COORDINATOR, *each.started_by)
            for each in self._store.catalog.versions(address.flow_type)
        )

    async def _newest(self, subject_filter: str) -> RawMessage | None:
        return await self._bus.last_on_leader(FLOW, subject_filter, timeout=time_left(API_TIMEOUT))

    async def _subjects(self, subject_filter: str) -> Sequence[str]:
        return await listed_subjects(self._bus, FLOW, subject_filter, timeout=time_left(API_TIMEOUT))


def no_flow(flow_id: str) -> HandrailError:
    """Returns the error for a flow that does not exist."""
    return HandrailError(ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, f"there is no flow {flow_id}", flow_id=flow_id)


def no_approval(approval_id: str) -> HandrailError:
    """Returns the error for an approval that does not exist."""
    return HandrailError(
        ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND, f"there is no approval {approval_id}", approval_id=approval_id
    )


def no_act(act_id: str) -> HandrailError:
    """Returns the error for an act that does not exist."""
    return HandrailError(ErrorReason.ERROR_REASON_ACT_NOT_FOUND, f"there is no act {act_id}", act_id=act_id)


def _readable_types() -> Scope:
    """The flow types that the current caller may read."""
    caller = authorization.caller_if_known()
    if caller is None or caller.reads(EVERY_TYPE):
        return Scope(every_type=True)
    return Scope(flow_types=sorted({each.flow_type for each in caller.grants if caller.reads(each.flow_type)}))


def _parsed(subject: str) -> Address | None:
    try:
        return parse(subject)
    except HandrailError:
        return None


def _found(message: RawMessage) -> Found:
    _, flow_type, flow_id, _ = message.subject.split(".", 3)
    return Found(flow_type, flow_id, message.sequence)
