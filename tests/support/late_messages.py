"""Everything that may be said about a flow after it was purged: what was said before, and what could have been."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from google.protobuf.message import Message

from handrail.mesh.flow import Flow
from handrail.mesh.flow.work import Moment, Work
from handrail.mesh.wire.envelope import COMMANDS, Entry, Recorded, pack
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.failure_pb2 import StepCompleted, StepFailed, StepNotStarted, StepProgress

_BY_COORDINATOR = frozenset({Kind.RELEASED, *COMMANDS})


def said_again(history: Sequence[Recorded]) -> Iterator[Entry]:
    """The messages of a flow's agents once more, as if a copy of each had been on its way all the time.

    Without its first event, which begins the flow anew: whoever sends it gives up after seconds, and looks at KEY
    before it tries again. The coordinator's can't come late: the broker compares what they were based on.
    """
    for recorded in history:
        if recorded.agent != COORDINATOR and recorded.kind not in _BY_COORDINATOR and recorded.event.step:
            yield Entry(recorded.address, recorded.event)


def never_said(flow: Flow, history: Sequence[Recorded], now: datetime) -> Iterator[Entry]:
    """Failures, heartbeats, undo reports and answers of later runs that did not come while the flow was there."""
    known = {recorded.address.subject for recorded in history}
    for entry in (*_of_runs(flow, Moment(now)), *_of_undos(flow, Moment(now))):
        if entry.address.subject not in known:
            known.add(entry.address.subject)
            entry.event.late = True
            yield entry


def _of_runs(flow: Flow, moment: Moment) -> Iterator[Entry]:
    for run in flow.runs.values():
        known = [each.event.data for each in flow.facts.values() if each.event.step == run.step.name]
        answers = [pack(StepCompleted()), *known[:1]]
        for number, attempt in ((run.run, run.attempt), (run.run, run.attempt + 1), (run.run + 1, 1)):
            work = Work(
                template=flow.template,
                flow_id=flow.flow_id,
                step=run.step,
                root=run.root,
                run=number,
                attempt=attempt,
                cause=run.trigger.event_id,
            )
            failures: list[Message] = [
                StepFailed(error_class="E", text="late", retryable=True, outcome_unknown=True),
                StepNotStarted(text="late"),
                StepProgress(counter=77, began=True),
            ]
            yield from (work.outcome(pack(each), moment=moment) for each in failures)
            yield from (work.outcome(each, moment=moment, total=1) for each in answers)


def _of_undos(flow: Flow, moment: Moment) -> Iterator[Entry]:
    for event_id, effect in flow.effects.items():
        work = Work(
            template=flow.template,
            flow_id=flow.flow_id,
            step=effect.step,
            root=event_id,
            run=effect.recorded.event.run,
            attempt=1,
            cause=event_id,
            undo_of=event_id,
        )
        done = StepCompleted()
        yield work.outcome(pack(done), moment=moment, total=1)
        failed = StepFailed(error_class="E", text="late", retryable=True, undo_of=event_id)
        yield work.outcome(pack(failed), moment=moment)
