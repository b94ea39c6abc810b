"""Reads a flow for its page: its state at a moment, its messages, its template."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any

from handrail.console.coordinator import CallFailed
from handrail.console.flow import events
from handrail.console.web.console import Console, now
from handrail.console.web.sessions import FlowType, Session
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.event_pb2 import RecordedEvent
from handrail.v1.template_service_pb2 import GetTemplateRequest

MOST_EVENTS = 1_000
"""Of longer flows, the page shows so many of the first messages."""

_PAGE = 500
_NONE = Contracts.from_descriptor_set(b"")


@dataclass(frozen=True, slots=True)
class Reading:
    """A flow at a moment, and its messages up to then.

    `place` is the number of its newest message, from 1; `whole` is how many there are by now. `at` is the moment: the
    present, or when that message was stored.
    """

    flow: pb.Flow
    events: Sequence[RecordedEvent]
    place: int
    whole: int
    at: datetime
    type: FlowType | None

    @property
    def is_past(self) -> bool:
        """Whether this is the flow as it was before its newest message."""
        return self.place < self.whole

    def opened(self, recorded: RecordedEvent) -> Mapping[str, object]:
        """The payload of a message as JSON."""
        return self.payload(recorded.event.data) if recorded.HasField("event") else {}

    def payload(self, data: Any) -> Mapping[str, object]:
        """A payload as JSON, by the contract of the flow's version; as bytes if no contract opens it."""
        try:
            return (self.type.contracts if self.type else _NONE).to_json(data)
        except HandrailError:
            return events.raw(data)


async def read(console: Console, session: Session, flow_id: str, place: int | None) -> Reading:
    """Reads a flow now, or as it was after its message number `place`. Raises CallFailed."""
    recorded = await _events(console, session, flow_id)
    whole = len(recorded)
    request = pb.GetFlowRequest(flow_id=flow_id)
    if place is not None and 1 <= place < whole:
        recorded = recorded[:place]
        request.as_of_sequence = recorded[-1].sequence
    flow = (await console.coordinator.call(console.coordinator.flows.GetFlow, request, token=session.token)).flow
    at = recorded[-1].time.ToDatetime(UTC) if request.as_of_sequence else now()
    found = await flow_type(console, session, flow.flow_type, flow.template_version)
    return Reading(flow, recorded, len(recorded), whole, at, found)


async def flow_type(console: Console, session: Session, name: str, version: int) -> FlowType | None:
    """A stored version with its contracts; None if the person may not see it, or its contracts can't be read."""
    known = session.types.get((name, version))
    if known is not None:
        return known
    request = GetTemplateRequest(name=name, version=version)
    try:
        answer = await console.coordinator.call(console.coordinator.templates.GetTemplate, request, token=session.token)
        # Linking descriptors takes a while; others' pages go on meanwhile.
        contracts = await asyncio.to_thread(Contracts.from_descriptor_set, answer.stored.descriptors)
    except (CallFailed, HandrailError):
        return None
    found = FlowType(answer.stored.template, contracts)
    session.remember(name, version, found)
    return found


async def _events(console: Console, session: Session, flow_id: str) -> list[RecordedEvent]:
    found: list[RecordedEvent] = []
    request = pb.ListFlowEventsRequest(flow_id=flow_id, page_size=_PAGE)
    while len(found) < MOST_EVENTS:
        page = await console.coordinator.call(console.coordinator.flows.ListFlowEvents, request, token=session.token)
        found += page.events
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return found[:MOST_EVENTS]
