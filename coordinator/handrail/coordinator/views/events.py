"""Events as the API shows them."""

from __future__ import annotations

from handrail.mesh.envelope import Recorded, timestamp
from handrail.mesh.flow import Void
from handrail.v1.event_pb2 import Kind, RecordedEvent


def event_view(recorded: Recorded, void: Void | None = None) -> RecordedEvent:
    """An event as the stream holds it, and why the fold ignores it, where it does."""
    return RecordedEvent(
        sequence=recorded.sequence,
        time=timestamp(recorded.time),
        kind=Kind.Value(f"KIND_{recorded.kind.name}"),
        agent=recorded.agent,
        type=recorded.type,
        event=recorded.event,
        void_reason=void.text if void else "",
    )
