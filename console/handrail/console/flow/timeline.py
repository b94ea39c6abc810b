"""The steps of a flow on an axis of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.console.flow import states
from handrail.console.flow.states import State
from handrail.console.web.moments import lasting
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.template_pb2 import FlowTemplate, Step

WIDTH = 1_000
"""The length of the axis in the units of bars."""

_NARROWEST = 6
_FARTHEST = 6
"""A deadline is on the axis if it is at most so many times as far as what has passed."""

_WAITING = (pb.STEP_RUN_STATUS_OWED, pb.STEP_RUN_STATUS_BACKOFF)


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a row; `look` is ran, waits, failed, undone or idle."""

    start: int
    width: int
    look: str


@dataclass(frozen=True, slots=True)
class Row:
    """A step run, an approval, or a step that has not begun (`next` says what it waits for)."""

    name: str
    agent: str
    state: State | None
    bar: Bar | None
    took: str
    next: str = ""
    note: str = ""
    is_person: bool = False
    votes: tuple[int, ...] = ()
    due: int | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """All rows, and the ends of the axis. `present` is where now is, if the axis goes on."""

    rows: tuple[Row, ...]
    start: datetime
    end: datetime
    present: int | None

    @property
    def is_short(self) -> bool:
        """Whether its ends are told apart by seconds."""
        return self.end - self.start < timedelta(minutes=10)


def timeline(flow: pb.Flow, template: FlowTemplate | None, now: datetime) -> Timeline:
    """The timeline of a flow as it was at `now`."""
    start = flow.start_time.ToDatetime(UTC)
    is_over = flow.status in states.FINAL
    reached = max(flow.update_time.ToDatetime(UTC) if is_over else now, start + timedelta(milliseconds=1))
    end = reached if is_over else max([reached, *_deadlines(flow, start, reached)])
    axis = _Axis(start, end)
    rows = (*_runs(flow, axis, reached), *_approvals(flow, axis, reached), *_next(flow, template))
    return Timeline(rows, start, end, axis.at(reached) if end > reached else None)


class _Axis:
    def __init__(self, start: datetime, end: datetime) -> None:
        self._start = start
        self._length = (end - start).total_seconds()

    def at(self, time: datetime) -> int:
        share = (time - self._start).total_seconds() / self._length
        return round(WIDTH * min(1.0, max(0.0, share)))

    def bar(self, start: datetime, end: datetime, look: str) -> Bar:
        left, right = self.at(start), self.at(end)
        width = max(right - left, _NARROWEST)
        return Bar(min(left, WIDTH - width), width, look)


def _deadlines(flow: pb.Flow, start: datetime, reached: datetime) -> Iterator[datetime]:
    for approval in flow.approvals:
        if approval.status == pb.APPROVAL_STATUS_PENDING and approval.HasField("expire_time"):
            due = approval.expire_time.ToDatetime(UTC)
            if due - start <= _FARTHEST * (reached - start):
                yield due


def _runs(flow: pb.Flow, axis: _Axis, reached: datetime) -> Iterator[Row]:
    for run in flow.step_runs:
        began = run.trigger_time.ToDatetime(UTC)
        is_waiting = run.status in _WAITING
        ended = run.end_time.ToDatetime(UTC) if run.HasField("end_time") and not is_waiting else None
        has_bar = is_waiting or ended is not None
        note = f"attempt {run.attempt} of {run.max_attempts}" if run.attempt > 1 else ""
        if run.run:
            note = ", ".join(filter(None, [f"repeat {run.run}", note]))
        if run.outcome_unknown:
            note = ", ".join(filter(None, [note, "outcome unknown"]))
        yield Row(
            run.step,
            run.agent,
            states.of_run(run.status),
            axis.bar(began, ended or reached, _look(run.status)) if has_bar else None,
            lasting((ended or reached) - began) if has_bar else "·",
            note=note,
        )


def _look(status: pb.StepRunStatus.ValueType) -> str:
    looks = {
        pb.STEP_RUN_STATUS_OWED: "waits",
        pb.STEP_RUN_STATUS_BACKOFF: "waits",
        pb.STEP_RUN_STATUS_DONE: "ran",
        pb.STEP_RUN_STATUS_FAILED: "failed",
        pb.STEP_RUN_STATUS_UNDONE: "undone",
    }
    return looks.get(status, "idle")


def _approvals(flow: pb.Flow, axis: _Axis, reached: datetime) -> Iterator[Row]:
    for approval in flow.approvals:
        asked = approval.request_time.ToDatetime(UTC)
        is_pending = approval.status == pb.APPROVAL_STATUS_PENDING
        answered = [vote.time.ToDatetime(UTC) for vote in approval.votes]
        expires = approval.expire_time.ToDatetime(UTC) if approval.HasField("expire_time") else None
        end = reached if is_pending else max([asked, *answered, *([expires] if not answered and expires else [])])
        given = sum(vote.approve for vote in approval.votes)
        wanted = max((gate.quorum or 1 for gate in approval.gates), default=1)
        yield Row(
            ", ".join(gate.gate for gate in approval.gates),
            ", ".join(sorted({role for gate in approval.gates for role in gate.roles})),
            states.of_approval(approval.status),
            axis.bar(asked, min(end, reached), "waits" if is_pending else "idle"),
            f"{given}/{wanted}",
            is_person=True,
            votes=tuple(map(axis.at, answered)),
            due=axis.at(expires) if is_pending and expires and axis.at(expires) < WIDTH else None,
        )


def _next(flow: pb.Flow, template: FlowTemplate | None) -> Iterator[Row]:
    """The steps that have not begun, while the flow goes on."""
    if template is None or flow.status in states.FINAL or flow.halt_mode:
        return
    begun = {run.step for run in flow.step_runs}
    held = {each.type for each in flow.approvals if each.status == pb.APPROVAL_STATUS_PENDING}
    for step in template.steps:
        if step.name not in begun:
            yield Row(step.name, step.agent, None, None, "·", next=_waits_for(step, template, held))


def _waits_for(step: Step, template: FlowTemplate, held: set[str]) -> str:
    wanted = [*step.after, *(each.type for each in step.after_all)]
    if held.intersection(wanted):
        return "next, once released"
    before = [each.name for each in template.steps if set(each.emits).intersection(wanted) and each.name != step.name]
    return f"after {', '.join(before)}" if before else f"after {', '.join(map(states.short_type, wanted))}"
