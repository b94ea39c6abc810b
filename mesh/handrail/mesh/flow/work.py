"""One attempt at a step run or an undo. The envelopes of its messages are derived from the work and the data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.any_pb2 import Any

from handrail.mesh.template import StepSpec, Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, timestamp, type_of
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted, StepProgress

FAILURES = frozenset({StepFailed.DESCRIPTOR.full_name, StepNotStarted.DESCRIPTOR.full_name})
PROGRESS = StepProgress.DESCRIPTOR.full_name

SAFE_AGE = timedelta(minutes=5)
"""A flow with a message this young is not purged soon, even if the clocks differ by some minutes. Who answers an older
message makes sure that FLOW still has it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The circumstances of an event: the publisher's clock, and the span, if one is recorded."""

    time: datetime
    span_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One attempt at a step run or, with `undo_of`, at undoing one of its effects; then `root` equals `undo_of`.

    `cause` is the id of the event it answers.
    """

    template: Template
    flow_id: str
    step: StepSpec
    root: str
    run: int
    attempt: int
    cause: str
    undo_of: str = ""

    def outcome(self, data: Any, *, moment: Moment, index: int = 0, total: int = 0) -> Entry:
        """Builds a message with its result: a fact, a proposal if the flow's version gates the type, the report of an
        undo, a failure, or a heartbeat.
        """
        kind = self._kind(type_of(data))
        entry = self.entry(kind, self._event_id(kind, data, index), data, moment)
        entry.event.output_index, entry.event.output_total = index, total
        return entry

    def entry(self, kind: Kind, event_id: str, data: Any, moment: Moment) -> Entry:
        """Builds a message of this kind and id about the work."""
        template = self.template
        event = Event(
            event_id=event_id,
            source=self.step.agent,
            flow_type=template.name,
            flow_id=self.flow_id,
            template_version=template.version,
            step=self.step.name,
            root=self.root,
            run=self.run,
            attempt=self.attempt,
            causation_id=self.cause,
            span_id=moment.span_id,
            time=timestamp(moment.time),
            data=data,
        )
        return Entry(Address(template.name, self.flow_id, kind, self.step.agent, event_id, type_of(data)), event)

    def _kind(self, name: str) -> Kind:
        if name in FAILURES:
            return Kind.FAILURE
        if name == PROGRESS:
            return Kind.PROGRESS
        if self.undo_of:
            return Kind.UNDONE
        return Kind.PROPOSAL if self.template.gates_on(name) else Kind.EVENT

    def _event_id(self, kind: Kind, data: Any, index: int) -> str:
        run = self.flow_id, self.step.name, self.root, self.run
        match kind:
            case Kind.UNDONE:
                return ids.undone_id(self.flow_id, self.undo_of)
            case Kind.FAILURE:
                return ids.attempt_id("undo-failure" if self.undo_of else kind.value, *run, self.attempt)
            case Kind.PROGRESS:
                return ids.progress_id(*run, self.attempt, StepProgress.FromString(data.value).counter)
            case _:
                return ids.outcome_id(*run, index)
