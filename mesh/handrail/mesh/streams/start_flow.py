"""Starting a flow: stores its first event once. Shared by agents and the coordinator."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any

from handrail.mesh import telemetry
from handrail.mesh.bus import Bus, fresh_read
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.fold.outcomes import why_not_first
from handrail.mesh.streams import purged, streams
from handrail.mesh.streams.outcomes import readable
from handrail.mesh.template import Template
from handrail.mesh.waiting import Patience
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded, timestamp, type_of
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, key_subject
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest, Event

TemplateOf = Callable[[str, int], Awaitable[Template]]
"""Returns a stored version of a flow type. Raises TEMPLATE_NOT_FOUND."""


@dataclass(frozen=True, slots=True)
class Started:
    """The started flow. `already_started`: another call with the same key had started it before; `same`: with the same
    data. `span_id` is the span that published the first event, if it was recorded."""

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
    request: CallerRequest | None = None,
    template_of: TemplateOf | None = None,
) -> Started:
    """Publishes the first event of a flow of this template version.

    With a key, the flow id is derived from it, and the use of the key is recorded first, in a stream that outlives the
    flow's events: a second start returns the same flow. Without a key, the id is derived from the call if `request` has
    an id: a repeated call gets the same answer. A flow that was purged since is not begun again. `template_of` helps to
    recognise a flow started with another version. Raises HandrailError: CONTRACT_VIOLATION, UNKNOWN_MESSAGE_TYPE if no
    such flow starts with this message, REQUEST_ID_REUSED if the id of the call started a flow with other data, and the
    errors of publishing.
    """
    now = datetime.now(UTC)
    flow_id = _flow_id(template.name, key, request, now)
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
        request=request,
        key_hash=ids.key_hash(template.name, key) if key else "",
        key=key if len(key) <= ids.LONGEST_KEY else "",
    )
    first = _Start(bus, template, event, template_of)
    try:
        _check(template, data)
    except HandrailError:
        # The data may have been valid when the same call came first.
        earlier = await first.answered_before()
        if earlier is None:
            raise
        return earlier
    with telemetry.span("start", flow_id=flow_id, flow_type=template.name, agent=source) as span:
        event.span_id = span.span_id
        started = await first.store()
        if started.span_id != event.span_id:
            span.discard()  # a flow has only one root span
    return started


def _flow_id(flow_type: str, key: str, request: CallerRequest | None, now: datetime) -> str:
    if key:
        return ids.flow_id_from_key(flow_type, key)
    if request is not None and request.id:
        return ids.flow_id_from_request(flow_type, request.caller, request.id)
    return ids.new_flow_id(now, os.urandom(10))


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


@dataclass(frozen=True, slots=True)
class _Taken:
    """The messages in place of the first event, up to `sequence`; `started` if the first event is among them."""

    sequence: int
    started: Started | None


class _Start:
    """A first event that is being stored."""

    def __init__(self, bus: Bus, template: Template, event: Event, template_of: TemplateOf | None) -> None:
        self._bus = bus
        self._template = template
        self._template_of = template_of
        self._event = event
        # Two sources, or two message types, may start the flow of one key: the common expectation admits only one.
        self._place = f"flow.{event.flow_type}.{event.flow_id}.{Kind.EVENT.value}.*.{event.event_id}.>"
        self._subject = Address(
            event.flow_type, event.flow_id, Kind.EVENT, event.source, event.event_id, type_of(event.data)
        ).subject

    async def store(self) -> Started:
        """Stores the event, or finds the event stored in its place."""
        if self._event.key_hash:
            return await self._earlier() or await self._store_once()
        if self._event.request.id:
            return await self._purged() or await self._store_once()
        return self._stored_at(await self._publish(None))

    async def answered_before(self) -> Started | None:
        """The flow that the same call started; None if it started none, or can't be recognised."""
        if not self._event.request.id:
            return None
        started = (await self._taken(0)).started
        return None if started is None or started.already_started else started

    async def _store_once(self) -> Started:
        """Store it where nothing has begun the flow. What an agent put there that may not begin it is in nobody's way;
        what is in flight to the replicas is waited for."""
        patience, expected = Patience(PUBLISH_TIMEOUT), 0
        while True:
            try:
                return self._stored_at(await self._publish(expected))
            except (AlreadyStored, WrongSequence) as refusal:
                named = refusal.last_sequence if isinstance(refusal, WrongSequence) else None
                taken = await self._taken(named or 0)
                if taken.started is not None:
                    return taken.started
                if taken.sequence > expected:
                    expected = taken.sequence
                elif not await patience.wait():
                    raise BrokerUnavailable(f"{self._subject} was refused, and nothing is stored there") from refusal

    async def _publish(self, expected_sequence: int | None) -> int:
        return await self._bus.publish(
            self._subject,
            self._event.SerializeToString(),
            expected_sequence=expected_sequence,
            expected_filter=None if expected_sequence is None else self._place,
            headers=telemetry.headers(),
        )

    def _stored_at(self, sequence: int) -> Started:
        event = self._event
        return Started(event.flow_id, event.event_id, sequence, already_started=False, span_id=event.span_id)

    async def _earlier(self) -> Started | None:
        """The flow of an earlier use of the key; None if this is the first use, or if the first one stored only the
        key."""
        event = self._event
        subject = key_subject(event.flow_type, event.key_hash)
        try:
            await self._bus.publish(subject, event.flow_id.encode())
        except AlreadyStored:
            pass
        else:
            return None
        taken = await self._taken(0)
        if taken.started is not None:
            return taken.started
        # It was not there before this look: who purges it records that first.
        gone = await self._purged()
        if gone is not None:
            return gone
        record = await self._bus.last_on_leader(streams.KEY, subject)
        if record is None or datetime.now(UTC) - record.time < self._template.deadline:
            return None
        # The events were lost, or an earlier release removed them. The key stays in use.
        return self._started_before(0)

    async def _purged(self) -> Started | None:
        """The flow, if it was begun before and purged since; whether with the same data, nobody here can tell."""
        record = await purged.recorded(self._bus, self._event.flow_type, self._event.flow_id)
        return None if record is None else self._started_before(record.first_sequence)

    def _started_before(self, sequence: int) -> Started:
        event = self._event
        return Started(event.flow_id, event.event_id, sequence, already_started=True, same=False)

    async def _taken(self, named: int) -> _Taken:
        """The messages in place of the event on the leader, at least up to the sequence that a refusal named."""
        newest = max(named, await fresh_read.newest(self._bus, streams.FLOW, self._place))
        if not newest:
            return _Taken(0, None)
        page = await fresh_read.read(self._bus, streams.FLOW, [self._place], at_least=newest)
        for message in page.messages:
            recorded = readable(message)
            if recorded is not None and await self._begins(recorded):
                return _Taken(newest, self._begun_by(recorded))
        if any(message.subject == self._subject for message in page.messages):
            raise AlreadyStored(self._subject)
        return _Taken(page.messages[-1].sequence if page.messages else 0, None)

    async def _begins(self, recorded: Recorded) -> bool:
        """Whether a message is the first event of the flow, judged by the version that it claims."""
        version, template = recorded.event.template_version, self._template
        if recorded.event.step:
            return False
        if version != template.version and self._template_of is not None:
            try:
                template = await self._template_of(template.name, version)
            except HandrailError as error:
                if error.reason != ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND:
                    raise
                return False
        return why_not_first(template, recorded) is None

    def _begun_by(self, stored: Recorded) -> Started:
        wanted = self._event
        is_ours = self._is_ours(stored)
        if is_ours and stored.event.request != wanted.request:
            raise HandrailError(
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                f"request id {wanted.request.id} started flow {wanted.flow_id} with another request; "
                "take a new id for each request",
                flow_id=wanted.flow_id,
            )
        return Started(
            wanted.flow_id,
            wanted.event_id,
            stored.sequence,
            # If it equals our own event, only the answer to it was lost.
            already_started=not is_ours and stored.event != wanted,
            same=stored.event.data == wanted.data,
            span_id=stored.event.span_id,
        )

    def _is_ours(self, stored: Recorded) -> bool:
        """Whether a call with the same id started the flow; only events of the coordinator carry calls."""
        ours, theirs = self._event.request, stored.event.request
        return bool(ours.id) and stored.agent == COORDINATOR and (ours.caller, ours.id) == (theirs.caller, theirs.id)
