"""API views of events."""

from __future__ import annotations

from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Void
from handrail.mesh.wire.envelope import Malformed, Recorded, timestamp
from handrail.mesh.wire.subjects import parse
from handrail.v1.event_pb2 import Kind, RecordedEvent


def event_view(recorded: Recorded | Malformed, void: Void | None = None) -> RecordedEvent:
    """Shows an event as the stream holds it, and why the fold ignores it, if it does.

    An unreadable one has no `event`; its kind, agent and type are taken from its subject as far as possible.
    """
    if isinstance(recorded, Malformed):
        return _malformed_view(recorded, void)
    return RecordedEvent(
        sequence=recorded.sequence,
        time=timestamp(recorded.time),
        kind=Kind.Value(f"KIND_{recorded.kind.name}"),
        agent=recorded.agent,
        type=recorded.type,
        event=recorded.event,
        void_reason=void.text if void else "",
    )


def _malformed_view(malformed: Malformed, void: Void | None) -> RecordedEvent:
    why = void.text if void else malformed.error.text
    view = RecordedEvent(sequence=malformed.sequence, time=timestamp(malformed.time), void_reason=why)
    try:
        address = parse(malformed.subject)
    except HandrailError:
        return view
    view.kind = Kind.Value(f"KIND_{address.kind.name}")
    view.agent, view.type = address.agent, address.message_type
    return view
