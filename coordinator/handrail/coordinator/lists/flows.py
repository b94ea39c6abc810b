"""Lists that scan the streams: exact, with a latency that grows with the stream, and no index to maintain.

A list continues from a cursor, which is a sequence of the stream. Messages of a stream never move, so new messages do
not disturb the pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Proposal, ProposalState
from handrail.mesh.fold import status as status_of
from handrail.mesh.streams import FLOW, outcomes, stream_walk
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded, Unreadable
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, parse
from handrail.v1.decision_pb2 import ApprovalRequested, FlowStatus
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

EXAMINED = 1000
"""How many flows one page looks at. A page of a rare status may be short although more follow."""

_GONE = (ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, ErrorReason.ERROR_REASON_FLOW_ARCHIVED)

_APPROVAL_REQUESTED = ApprovalRequested.DESCRIPTOR.full_name
_AT_ONCE = 16

Covers = Callable[[str], bool]
"""Tells whether items of a flow type belong into a list; the others are left out."""

Item = TypeVar("Item")
ItemOf = TypeVar("ItemOf", covariant=True)


@dataclass(frozen=True, slots=True)
class Listed(Generic[ItemOf]):
    """One item of a list; `cursor` continues the list after it."""

    item: ItemOf
    cursor: int


@dataclass(frozen=True, slots=True)
class Listing(Generic[ItemOf]):
    """One page. `next_cursor` is 0 at the end of the list."""

    rows: tuple[Listed[ItemOf], ...]
    next_cursor: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A proposal that asked people, and the current state of its flow."""

    flow: Flow
    proposal: Proposal


def every_type(flow_type: str) -> bool:
    """Covers every flow type."""
    return True


class Scanner:
    """Lists flows and approvals. Every call also raises what reading the streams raises."""

    def __init__(self, bus: Bus, store: FlowStore) -> None:
        self._bus = bus
        self._store = store

    async def flows(
        self,
        *,
        size: int,
        cursor: int = 0,
        flow_type: str = "",
        status: FlowStatus.ValueType = FlowStatus.FLOW_STATUS_UNSPECIFIED,
        where: Callable[[Flow], bool] = lambda flow: True,
        covers: Covers = every_type,
    ) -> Listing[Flow | Unreadable]:
        """Lists flows, newest first, filtered by type, status and an optional predicate.

        Unreadable flows have no status; `where` is not applied to them.
        """
        await self._store.catalog.refresh()
        rows: list[Listed[Flow | Unreadable]] = []
        examined = 0
        async for some in chunks(self._starts(flow_type, covers, below=cursor), _AT_ONCE):
            flows = await asyncio.gather(*(self.flow(a.flow_type, a.flow_id, sequence) for a, sequence in some))
            for (_, sequence), flow in zip(some, flows, strict=True):
                examined += 1
                if isinstance(flow, Unreadable):
                    fits = not status
                else:
                    fits = flow is not None and (not status or status_of(flow) == status) and where(flow)
                if flow is not None and fits:
                    rows.append(Listed(flow, sequence))
                if len(rows) == size or examined == EXAMINED:
                    return Listing(tuple(rows), sequence)
        return Listing(tuple(rows), 0)

    async def approvals(
        self,
        *,
        size: int,
        cursor: int = 0,
        flow_type: str = "",
        include_closed: bool = False,
        covers: Covers = every_type,
    ) -> Listing[Asked | Unreadable]:
        """Lists proposals that wait for people, by the time of the request, oldest first; with `include_closed` all
        that ever asked.
        """
        rows: list[Listed[Asked | Unreadable]] = []
        examined = 0
        subject_filter = f"flow.{flow_type or '*'}.*.{Kind.DECISION}.{COORDINATOR}.*.{_APPROVAL_REQUESTED}"
        async for message in stream_walk.oldest_first(self._bus, FLOW, subject_filter, after=cursor):
            examined += 1
            asked = await self._asked(message) if covers(_flow_type_of(message)) else None
            if asked is not None and (
                isinstance(asked, Unreadable) or include_closed or asked.proposal.state is ProposalState.PENDING
            ):
                rows.append(Listed(asked, message.sequence))
            if len(rows) == size or examined == EXAMINED:
                return Listing(tuple(rows), message.sequence)
        return Listing(tuple(rows), 0)

    async def flow(self, flow_type: str, flow_id: str, at_least: int) -> Flow | Unreadable | None:
        """Reads a flow for a list, at least as new as this sequence; None if it does not exist."""
        try:
            flow = await self._store.load(flow_type, flow_id, at_least=at_least)
        except Exception as error:
            if isinstance(error, HandrailError) and error.reason in _GONE:
                return None  # its first event is unreadable and in quarantine, or it was purged meanwhile
            return unreadable(flow_type, flow_id, error)
        # Its first event does not count and is in quarantine: the flow does not exist.
        return flow if flow.first is not None else None

    async def _asked(self, message: RawMessage) -> Asked | Unreadable | None:
        request = outcomes.readable(message)
        if request is None:
            return None
        try:
            return await self._asked_by(request)
        except Exception as error:
            address = request.address
            return unreadable(address.flow_type, address.flow_id, error, proposal_id=_proposal_of(request))

    async def _asked_by(self, request: Recorded) -> Asked | None:
        address = request.address
        history = await self._store.read(address.flow_type, address.flow_id, at_least=request.sequence)
        flow = await self._store.fold(address.flow_type, address.flow_id, history)
        proposal_id = _proposal_of(request)
        proposal = flow.proposals.get(proposal_id)
        if proposal is None or proposal.requested_at is None:
            return None
        # A proposal may be asked again with a new expiry: its first request gives its place in the list.
        asked = (r for r in history if r.type == _APPROVAL_REQUESTED and r.sequence not in flow.void)
        first = next((r for r in asked if _proposal_of(r) == proposal_id), None)
        return Asked(flow, proposal) if first is not None and first.sequence == request.sequence else None

    async def _starts(self, flow_type: str, covers: Covers, *, below: int) -> AsyncIterator[tuple[Address, int]]:
        """Yields the first events of flows with their sequences, newest first."""
        filters = sorted(
            {
                f"flow.{template.name}.*.{Kind.EVENT}.*.*.{message_type}"
                for template in self._store.catalog.all()
                if flow_type in ("", template.name) and covers(template.name)
                for message_type in template.starts_with
            }
        )
        async for message in stream_walk.newest_first(self._bus, FLOW, filters, below=below):
            try:
                address = parse(message.subject)
            except HandrailError:
                continue
            if address.event_id == ids.start_id(address.flow_id):
                yield address, message.sequence


def readable(listing: Listing[Flow | Unreadable]) -> Listing[Flow]:
    """Drops the unreadable flows from a page."""
    rows = tuple(Listed(row.item, row.cursor) for row in listing.rows if isinstance(row.item, Flow))
    return Listing(rows, listing.next_cursor)


def unreadable(flow_type: str, flow_id: str, error: Exception, *, proposal_id: str = "") -> Unreadable:
    """Stands in for a flow that could not be read; raises the error again if the broker is unavailable."""
    if isinstance(error, HandrailError):
        if error.reason == ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE:
            raise error
        _logger.warning("flow %s can't be listed: %s", flow_id, error.text)
        return Unreadable(flow_type, flow_id, error.text, proposal_id)
    _logger.error("flow %s can't be listed", flow_id, exc_info=error)
    return Unreadable(flow_type, flow_id, f"unexpected: {type(error).__name__}", proposal_id)


async def chunks(items: AsyncIterator[Item], size: int) -> AsyncIterator[list[Item]]:
    """Yields the items in lists of this size; the last one may be shorter."""
    chunk: list[Item] = []
    async for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _flow_type_of(message: RawMessage) -> str:
    """Returns the flow type in a subject of the stream FLOW."""
    return message.subject.split(".")[1]


def _proposal_of(request: Recorded) -> str:
    asked = ApprovalRequested()
    try:
        request.event.data.Unpack(asked)
    except DecodeError:
        return ""
    return asked.proposal_id
