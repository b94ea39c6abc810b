"""The rows of a flow: what the index holds of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.message import DecodeError

from handrail.mesh.flow import Effect, EffectState, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold import FINAL, status, status_reason
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import EscalationCause, FlowStatus, StepTimedOut
from handrail.v1.failure_pb2 import DivergenceKind, StepFailed
from handrail.visibility.index.attributes import attributes
from handrail.visibility.index.signatures import normalised, signature

Row = dict[str, object]

TIMED_OUT = "TimedOut"
"""The error class of an attempt that went silent."""

_APPROVAL_STATUS = {
    ProposalState.EVALUATED: "PENDING",
    ProposalState.PENDING: "PENDING",
    ProposalState.APPROVED: "APPROVED",
    ProposalState.RELEASED: "APPROVED",
    ProposalState.REJECTED: "REJECTED",
    ProposalState.EXPIRED: "EXPIRED",
    ProposalState.WITHDRAWN: "WITHDRAWN",
}
_AWAITED = (RunState.OWED, RunState.BACKOFF)
_STATUS = {number: name.removeprefix("FLOW_STATUS_") for name, number in FlowStatus.items()}


class _Owed(NamedTuple):
    """What an agent owes: a run of a step, or the undo of what it did."""

    step: str
    agent: str
    attempt: int
    due: datetime | None


@dataclass(slots=True)  # frozen, it would take twice as long to make
class FlowRows:
    """All rows of one flow: those of a folded one, or why it is `unfolded`. Nobody changes them.

    `failures` may be those of some of its messages only: they are added to what is there. `has_beginning` tells of
    an unfolded one that FLOW has its beginning: what the index has of it no longer holds, unlike that of a purged flow.
    """

    flow_type: str
    flow_id: str
    flow: Row | None = None
    unfolded: Row | None = None
    has_beginning: bool = False
    owed: list[Row] = field(default_factory=list)
    approvals: list[Row] = field(default_factory=list)
    acts: list[Row] = field(default_factory=list)
    escalations: list[Row] = field(default_factory=list)
    divergences: list[Row] = field(default_factory=list)
    attributes: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the flow is over."""
        return self.flow is not None and self.flow["ended"] is not None


def rows_of(flow: Flow, news: Iterable[Recorded]) -> FlowRows:
    """The rows of a folded flow. `news` are its messages that may be failures which the index does not have yet."""
    if flow.first is None or flow.last_time is None:
        time = flow.last_time or datetime.fromtimestamp(0, UTC)
        return unfolded_rows(
            flow.flow_type, flow.flow_id, sequence=flow.last_sequence, time=time, why="no first event has come"
        )
    first = flow.first.sequence
    now = status(flow)
    final = now in FINAL
    awaited = [] if final else [run for run in flow.awaited_runs() if run.state in _AWAITED]
    undoing = [] if final else [each for each in flow.undo_targets() if each.state is EffectState.UNDOING]
    return FlowRows(
        flow.flow_type,
        flow.flow_id,
        flow=_flow_row(flow, first, now, retrying=_is_retrying(awaited, undoing)),
        owed=_owed_rows(first, awaited, undoing),
        approvals=[_approval_row(first, *each) for each in flow.proposals.items() if each[1].requested_at is not None],
        acts=[_act_row(first, each) for each in flow.acts.values()],
        escalations=[
            {
                "first_sequence": first,
                "escalation_id": each.escalation_id,
                "cause": _name(EscalationCause.Name(each.cause), "ESCALATION_CAUSE_"),
                "step": each.step,
                "reason": each.reason,
                "opened": each.opened,
            }
            for each in flow.escalations.values()
        ],
        divergences=[
            {
                "sequence": each.sequence,
                "first_sequence": first,
                "flow_type": flow.flow_type,
                "agent": each.agent,
                "kind": _name(DivergenceKind.Name(each.kind), "DIVERGENCE_KIND_"),
                "type": each.type,
                "text": each.text,
                "version": each.version,
                "asks": each.asks,
                "time": each.time,
            }
            for each in flow.divergences
        ],
        attributes=[{"first_sequence": first, **each._asdict()} for each in attributes(flow)],
        failures=[*_failure_rows(flow, first, news)],
    )


def unfolded_rows(flow_type: str, flow_id: str, *, sequence: int, time: datetime, why: str) -> FlowRows:
    """The rows of messages that can't be folded; `sequence` and `time` are those of the last one."""
    row = {"flow_type": flow_type, "flow_id": flow_id, "why": why, "sequence": sequence, "time": time}
    return FlowRows(flow_type, flow_id, unfolded=row)


def _flow_row(flow: Flow, first: int, now: FlowStatus.ValueType, *, retrying: bool) -> Row:
    return {
        "first_sequence": first,
        "flow_type": flow.flow_type,
        "flow_id": flow.flow_id,
        "key": flow.key,
        "version": flow.template.version,
        "status": _STATUS[now],
        "reason": status_reason(flow, now),
        "halt_mode": 0 if flow.halt is None else flow.halt.mode,
        "requester": flow.requester,
        "started": flow.start_time,
        "updated": flow.last_time,
        "ended": flow.last_time if now in FINAL else None,
        "deadline": flow.deadline,
        "retrying": retrying,
        "stuck_since": min((each.opened for each in flow.escalations.values()), default=None),
        "last_sequence": flow.last_sequence,
        "messages": flow.message_count,
        "verdict": None,
    }


def _is_retrying(awaited: Iterable[StepRun], undoing: Iterable[Effect]) -> bool:
    return any(run.attempt > 1 or run.state is RunState.BACKOFF for run in awaited) or any(
        effect.attempt > 1 or effect.retry_at is not None for effect in undoing
    )


def _owed_rows(first: int, awaited: Iterable[StepRun], undoing: Iterable[Effect]) -> list[Row]:
    """One row for each step; of several runs, the first time at which one is due, and the highest attempt."""
    steps: dict[str, list[_Owed]] = {}
    for each in (*map(_owed_run, awaited), *map(_owed_undo, undoing)):
        steps.setdefault(each.step, []).append(each)
    return [
        {
            "first_sequence": first,
            "step": step,
            "agent": some[0].agent,
            "runs": len(some),
            "attempt": max(each.attempt for each in some),
            "due": min((each.due for each in some if each.due is not None), default=None),
        }
        for step, some in steps.items()
    ]


def _owed_run(run: StepRun) -> _Owed:
    due = run.deadline if run.state is RunState.OWED else run.retry_at
    return _Owed(run.step.name, run.step.agent, run.attempt, due)


def _owed_undo(effect: Effect) -> _Owed:
    return _Owed(effect.step.name, effect.step.agent, effect.attempt, effect.retry_at or effect.deadline)


def _approval_row(first: int, proposal_id: str, proposal: Proposal) -> Row:
    return {
        "first_sequence": first,
        "proposal_id": proposal_id,
        "status": _APPROVAL_STATUS[proposal.state],
        "step": proposal.recorded.event.step,
        "agent": proposal.recorded.agent,
        "type": proposal.recorded.type,
        "requested": proposal.requested_at,
        "expires": proposal.expires_at,
    }


def _act_row(first: int, act: PendingAct) -> Row:
    return {
        "first_sequence": first,
        "act_id": act.act_id,
        "status": act.state.name,
        "requested": act.recorded.time,
        "expires": act.expires,
    }


def _failure_rows(flow: Flow, first: int, news: Iterable[Recorded]) -> Iterator[Row]:
    for recorded in news:
        if recorded.sequence in flow.void or (said := _failure(flow, recorded)) is None:
            continue
        step, agent, error_class, text = said
        yield {
            "sequence": recorded.sequence,
            "first_sequence": first,
            "flow_type": flow.flow_type,
            "step": step,
            "agent": agent,
            "error_class": error_class,
            "text": normalised(text),
            "signature": signature(flow_type=flow.flow_type, step=step, error_class=error_class, text=text),
            "time": recorded.time,
        }


def _failure(flow: Flow, recorded: Recorded) -> tuple[str, str, str, str] | None:
    """Step, agent, error class and text of a failure; None if the message is none."""
    try:
        if recorded.kind is Kind.FAILURE and recorded.event.data.Is(StepFailed.DESCRIPTOR):
            failed = StepFailed.FromString(recorded.event.data.value)
            return recorded.event.step, recorded.agent, failed.error_class, failed.text
        if recorded.kind is Kind.DECISION and recorded.event.data.Is(StepTimedOut.DESCRIPTOR):
            timed_out = StepTimedOut.FromString(recorded.event.data.value)
            what = "the undo had no answer in time" if timed_out.undo_of else "no answer in time"
            return timed_out.step, _agent_of(flow, timed_out.step), TIMED_OUT, what
    except DecodeError:
        return None
    return None


def _agent_of(flow: Flow, step: str) -> str:
    spec = flow.template.steps.get(step) or flow.former_steps.get(step)
    return "" if spec is None else spec.agent


def _name(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)
