"""One attempt at a step run or an undo, and the messages that report on it. Pure: time and span are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from handrail.mesh.flow.starts import NO_STARTS, Starts
from handrail.mesh.flow.work import Moment, Work
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded, pack, type_of
from handrail.mesh.wire.subjects import Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import Divergence, DivergenceKind, StepFailed, StepNotStarted, StepProgress
from handrail.v1.template_pb2 import EFFECT_NONE

TEXT_LIMIT = 4096
"""How many characters of an error's text are reported (StepFailed.text)."""

_NOTE_LIMIT = 1024
_CLASS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Work):
    """One attempt to make now, at a step run or, with `undo_of`, at undoing one of its effects.

    `inputs` are the facts that the handler receives: one, or those of a join. `may_have_started` is set if an earlier
    delivery may have run the handler. `starts` are the recorded earlier starts; `on_record` is set if this start must
    be recorded, too. `deadline` is when the attempt times out, as of the last read of the flow. `in_halted_flow` is set
    if it runs although the flow is halted, because its outcome must be known. `right_after` is the sequence of its
    command, if its answer is probably the flow's next message; else 0.
    """

    inputs: tuple[Recorded, ...]
    deadline: datetime
    may_have_started: bool = False
    starts: Starts = NO_STARTS
    on_record: bool = False
    in_halted_flow: bool = False
    right_after: int = 0

    @property
    def timeout(self) -> timedelta:
        """How long an attempt may take without a heartbeat."""
        return self.step.undo.timeout if self.undo_of and self.step.undo else self.step.timeout

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for every attempt at the same work, in any process."""
        if self.undo_of:
            return ids.undo_key(self.flow_id, self.undo_of)
        return ids.idempotency_key(self.flow_id, self.step.name, self.root, self.run)

    @property
    def emits(self) -> frozenset[str]:
        """The types it may answer with, in addition to StepCompleted."""
        if self.undo_of:
            return self.step.undo.emits if self.step.undo else frozenset()
        return self.step.emits

    @property
    def may_have_effect(self) -> bool:
        """Whether a failed handler may have had an effect on the world; False for an undo."""
        return not self.undo_of and self.step.effect != EFFECT_NONE

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields of its log lines."""
        return {"flow_id": self.flow_id, "step": self.step.name}

    @property
    def label(self) -> str:
        """Its name in log lines."""
        what = f"undo of {self.undo_of} by step {self.step.name}" if self.undo_of else f"step {self.step.name}"
        return f"flow {self.flow_id}: {what}, attempt {self.attempt}"

    def failed(
        self, error_class: str, text: str, *, retryable: bool, outcome_unknown: bool = False, moment: Moment
    ) -> Entry:
        """Builds the report of a failed attempt. `outcome_unknown` is set if its effect may have happened."""
        message = StepFailed(
            error_class=_encodable(error_class)[:_CLASS_LIMIT] or "Exception",
            text=_encodable(text)[:TEXT_LIMIT],
            retryable=retryable,
            undo_of=self.undo_of,
            outcome_unknown=outcome_unknown,
        )
        return self.outcome(pack(message), moment=moment)

    def not_started(self, text: str, *, moment: Moment) -> Entry:
        """Builds the report that the handler did not run because the flow is halted: there is nothing to undo."""
        return self.outcome(pack(StepNotStarted(text=text[:TEXT_LIMIT])), moment=moment)

    def progress(
        self,
        counter: int,
        note: str,
        *,
        moment: Moment,
        began: bool = False,
        handed_back: bool = False,
        waiting: bool = False,
    ) -> Entry:
        """Builds the n-th durable heartbeat of the attempt. Without a flag, the handler is still running; otherwise it
        `began`, it was `handed_back`, or the attempt is `waiting` for a handler to begin.
        """
        message = StepProgress(
            counter=counter,
            note=_encodable(note)[:_NOTE_LIMIT],
            began=began,
            handed_back=handed_back,
            waiting=waiting,
        )
        return self.outcome(pack(message), moment=moment)

    def divergence(self, kind: DivergenceKind.ValueType, *, stored: Event, refused: Event, moment: Moment) -> Entry:
        """Builds the report of an answer that the stream refused, or that arrived for undone or halted work."""
        digest = ids.content_digest(refused.data.value)
        message = Divergence(
            kind=kind,
            event_id=refused.event_id,
            stored_type=type_of(stored.data),
            stored_digest=ids.content_digest(stored.data.value),
            refused_type=type_of(refused.data),
            refused_digest=digest,
        )
        event_id = ids.divergence_id(self.flow_id, refused.event_id, digest)
        return self.entry(Kind.DIVERGENCE, event_id, pack(message), moment)


def differs(stored: Event, answer: Event) -> bool:
    """Whether a stored outcome differs from an answer in type, content or number of outputs."""
    return (
        stored.data.type_url != answer.data.type_url
        or stored.data.value != answer.data.value
        or stored.output_total != answer.output_total
    )


def _encodable(text: str) -> str:
    """Replaces lone surrogates, as in a file name that is not UTF-8: protobuf can't encode them."""
    return text.encode("utf-8", "replace").decode()
