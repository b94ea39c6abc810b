"""Starting a flow: its first event, stored once, for agents and for the coordinator alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any

from handrail.mesh import ids, streams, telemetry
from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.envelope import Recorded, decode, timestamp, type_of
from handrail.mesh.errors import AlreadyStored, HandrailError, WrongSequence
from handrail.mesh.fold.outcomes import why_not_first
from handrail.mesh.subjects import Address, Kind, key_subject
from handrail.mesh.template import Template
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event


@dataclass(frozen=True, slots=True)
class Started:
    """Which flow it is. `already_started` is true where the key had begun it before; `same` where with the same
    data. `span_id` is the span that published the first event, where one was recorded."""

    flow_id: str
    event_id: str
    sequence: int
    already_started: bool
    same: bool = True
    span_id: str = ""


async def start(
    bus: Bus,
    template: Template,
    *,
    source: str,
    data: Any,
    key: str = "",
    requester: str = "",
) -> Started:
    """Publish the first event of a flow of this template's version.

    With a key the flow id follows from it, and the use of the key is recorded first, where it outlives the flow's
    events: a second start gives the same flow. Raises HandrailError: CONTRACT_VIOLATION, UNKNOWN_MESSAGE_TYPE where no
    such flow starts with this message, and what publishing raises.
    """
    _check(template, data)
    now = datetime.now(UTC)
    flow_id = ids.flow_id_from_key(template.name, key) if key else ids.new_flow_id(now, os.urandom(10))
    event = Event(
        event_id=ids.start_id(flow_id),
        source=source,
        flow_type=template.name,
        flow_id=flow_id,
        template_version=template.version,
        output_total=1,
        time=timestamp(now),
        data=data,
        requester=requester,
    )
    with telemetry.span("start", flow_id=flow_id, flow_type=template.name, agent=source) as span:
        event.span_id = span.span_id
        started = await _store(bus, template, key, event)
        if started.already_started:
            span.discard()  # a flow has one root
    return started


async def _store(bus: Bus, template: Template, key: str, event: Event) -> Started:
    if key:
        earlier = await _earlier(bus, template, key, event)
        if earlier is not None:
            return earlier
    # Two sources, or two types, may begin the flow of one key: the expectation lets one of them.
    expected_sequence, expected_filter = (0, _any_start(event)) if key else (None, None)
    address = Address(event.flow_type, event.flow_id, Kind.EVENT, event.source, event.event_id, type_of(event.data))
    try:
        sequence = await bus.publish(
            address.subject,
            event.SerializeToString(),
            expected_sequence=expected_sequence,
            expected_filter=expected_filter,
            headers=telemetry.headers(),
        )
    except (AlreadyStored, WrongSequence):
        stored = await _first_event(bus, template, event)
        if stored is not None:
            return stored
        # An agent that may not start the flow has taken the id with something of its own: void, and in nobody's way.
        sequence = await bus.publish(address.subject, event.SerializeToString(), headers=telemetry.headers())
    return Started(event.flow_id, event.event_id, sequence, already_started=False, span_id=event.span_id)


def _check(template: Template, data: Any) -> None:
    name = type_of(data)
    if name not in template.starts_with:
        raise HandrailError(
            ErrorReason.ERROR_REASON_UNKNOWN_MESSAGE_TYPE,
            f"no {template.name} starts with {name or 'a message without a type'}; "
            f"it starts with {', '.join(sorted(template.starts_with))}",
            type=name,
        )
    template.contracts.validate(template.contracts.decode(data))


async def _earlier(bus: Bus, template: Template, key: str, event: Event) -> Started | None:
    """What an earlier use of the key began; None where this is the first, or the first did not get further than the
    key."""
    subject = key_subject(template.name, ids.key_hash(template.name, key))
    try:
        await bus.publish(subject, event.flow_id.encode())
    except AlreadyStored:
        pass
    else:
        return None
    stored = await _first_event(bus, template, event)
    if stored is not None:
        return stored
    record = await bus.last(streams.KEY, subject)
    if record is None or datetime.now(UTC) - record.time < template.deadline:
        return None
    # The flow's events have aged out of the stream, which keeps them longer than a flow can last; the key is still
    # used.
    return Started(event.flow_id, event.event_id, 0, already_started=True, same=False)


async def _first_event(bus: Bus, template: Template, wanted: Event) -> Started | None:
    page = await bus.direct_get(streams.FLOW, multi_last=[_any_start(wanted)])
    found = (_readable(message) for message in page.messages)
    stored = next((each for each in found if each is not None and why_not_first(template, each) is None), None)
    if stored is None:
        return None
    same = stored.event.data == wanted.data
    # Where it is our own to the last byte, only the answer to it was lost.
    already_started = stored.event != wanted
    return Started(
        wanted.flow_id,
        wanted.event_id,
        stored.sequence,
        already_started=already_started,
        same=same,
        span_id=stored.event.span_id,
    )


def _readable(message: RawMessage) -> Recorded | None:
    try:
        return decode(message.subject, message.body, sequence=message.sequence, time=message.time)
    except HandrailError:
        return None


def _any_start(event: Event) -> str:
    return f"flow.{event.flow_type}.{event.flow_id}.{Kind.EVENT.value}.*.{event.event_id}.>"
