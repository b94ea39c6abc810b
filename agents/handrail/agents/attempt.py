"""One attempt at a step run or at an undo, and every message that can come of it. Pure: time and span are arguments."""

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

TEXT_LIMIT = 4096
"""Characters of an error's text that are reported (StepFailed.text)."""

_NOTE_LIMIT = 1024
_CLASS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Work):
    """What is to be done now: one attempt at a step run, or (with `undo_of`) at undoing one of its effects.

    `inputs` are the facts that the handler gets: one, or those of a join. `may_have_started` is set where an earlier
    delivery may have run the handler already. `starts` is what the flow knows of earlier starts, and `on_record` is set
    where this one is to be recorded too. `deadline` is when its time is up as the flow stood; `in_halted_flow` is set
    where it runs though the flow is halted, so that its outcome is known.
    """

    inputs: tuple[Recorded, ...]
    deadline: datetime
    may_have_started: bool = False
    starts: Starts = NO_STARTS
    on_record: bool = False
    in_halted_flow: bool = False

    @property
    def timeout(self) -> timedelta:
        """How long an attempt may take without a heartbeat."""
        return self.step.undo.timeout if self.undo_of and self.step.undo else self.step.timeout

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at the same work, whichever process makes it."""
        if self.undo_of:
            return ids.undo_key(self.flow_id, self.undo_of)
        return ids.idempotency_key(self.flow_id, self.step.name, self.root, self.run)

    @property
    def emits(self) -> frozenset[str]:
        """The types it may answer with, besides StepCompleted."""
        if self.undo_of:
            return self.step.undo.emits if self.step.undo else frozenset()
        return self.step.emits

    @property
    def label(self) -> str:
        """How a log line names it."""
        what = f"undo of {self.undo_of} by step {self.step.name}" if self.undo_of else f"step {self.step.name}"
        return f"flow {self.flow_id}: {what}, attempt {self.attempt}"

    def failed(
        self, error_class: str, text: str, *, retryable: bool, outcome_unknown: bool = False, moment: Moment
    ) -> Entry:
        """The attempt failed. `outcome_unknown` is set where its effect may have happened all the same."""
        message = StepFailed(
            error_class=_encodable(error_class)[:_CLASS_LIMIT] or "Exception",
            text=_encodable(text)[:TEXT_LIMIT],
            retryable=retryable,
            undo_of=self.undo_of,
            outcome_unknown=outcome_unknown,
        )
        return self.outcome(pack(message), moment=moment)

    def not_started(self, text: str, *, moment: Moment) -> Entry:
        """The flow is halted and the handler did not run: nothing has to be undone."""
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
        """The n-th durable heartbeat of the attempt: it goes on; its handler `began`, or was `handed_back`; or it is
        `waiting`, and no handler was begun.
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
        """What the stream can't show: an answer that it refused, or one that came for undone or halted work."""
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
    """Whether a stored outcome is another answer: of another type, content or number of outputs."""
    return (
        stored.data.type_url != answer.data.type_url
        or stored.data.value != answer.data.value
        or stored.output_total != answer.output_total
    )


def _encodable(text: str) -> str:
    """The text as protobuf can carry it: a lone surrogate, as in a file name that is not UTF-8, can't be encoded."""
    return text.encode("utf-8", "replace").decode()
