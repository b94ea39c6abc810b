"""Compares the installation's answer about a flow with its messages, and checks that an open flow waits visibly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.cli.verify.account import Account
from handrail.cli.verify.approvals import canonical
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.record import COORDINATOR
from handrail.cli.verify.rules import found
from handrail.cli.verify.standing import FOR_EVER, OPEN, Standing
from handrail.v1.decision_pb2 import Escalated, EscalationCause, FlowStatus
from handrail.v1.flow_service_pb2 import ApprovalStatus, Expectation, Flow

GRACE = timedelta(minutes=2)
"""How late anything due may be: two sweeps."""

FINAL = frozenset(
    {
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    }
)


def contradictions(account: Account, standing: Standing, said: Flow) -> Iterator[Finding]:
    """Yields contradictions between the installation's flow and its messages; skips a flow that has moved on since."""
    if not account.messages or said.last_sequence != account.messages[-1].sequence or account.unsure:
        return
    told = said.status if said.status in FINAL else OPEN
    if told != standing.status and not _a_rule_may_have_tripped(account, standing, told):
        text = f"it is shown as {_name(said.status)}, but its messages lead to {_name(standing.status)}"
        yield found(account, Breach.WRONG, text)
    yield from _votes_not_counted(account, said)


def hung(account: Account, said: Flow, *, now: datetime, grace: timedelta = GRACE) -> Iterator[Finding]:
    """Explains why an open flow does not wait visibly: nothing is owed, or nobody is named, or no due time."""
    if said.status in FINAL:
        return
    still_since = _time(said.update_time)
    is_still = now - still_since > grace
    overdue = [each for each in said.expectations if _due(each) and now - _time(each.due_time) > grace]
    for each in overdue:
        yield found(account, Breach.HUNG, f"{_name(said.status)}, overdue since {_time(each.due_time)}: {each.what}")
    if overdue or not is_still:
        return
    if not any(_waits(each) for each in said.expectations):
        owed = "; ".join(each.what for each in said.expectations) or "nothing"
        text = f"{_name(said.status)} since {still_since}, without a responsible person or a due time: {owed}"
        yield found(account, Breach.HUNG, text)
    elif _past_its_deadline(account, said, now - grace):
        yield found(account, Breach.HUNG, f"{_name(said.status)}, past the flow's deadline, but no person was told")


def _a_rule_may_have_tripped(account: Account, standing: Standing, told: FlowStatus.ValueType) -> bool:
    """A rule that tripped by a condition holds a complete flow, and does not show before it is recorded."""
    by_facts = standing.status == FlowStatus.FLOW_STATUS_COMPLETED and not standing.is_halted
    return told == OPEN and by_facts and account.plan is not None and bool(account.plan.template.rules)


def _waits(owed: Expectation) -> bool:
    """Tells whether the flow waits for somebody or for a due time. A decision that could be made now is neither."""
    if owed.by_roles:
        return True
    is_decision = owed.by_agent == COORDINATOR and not owed.step and not owed.subject_id
    return _due(owed) and not is_decision


def _past_its_deadline(account: Account, said: Flow, then: datetime) -> bool:
    if account.plan is None or said.halt_mode or any(each.type.endswith(".TimeCredited") for each in account.messages):
        return False
    told = any(
        Escalated.FromString(each.data).cause == EscalationCause.ESCALATION_CAUSE_DEADLINE
        for each in account.decisions(Escalated)
    )
    return not told and _time(said.start_time) + account.plan.deadline < then


def _votes_not_counted(account: Account, said: Flow) -> Iterator[Finding]:
    shown = {each.approval_id.rpartition(".")[2]: each for each in said.approvals}
    for approval_id, proposed in account.approvals.proposals.items():
        view = shown.get(approval_id)
        request = proposed.request(FOR_EVER)
        if view is None or request is None or account.approvals.moved_at or len(proposed.requests) > 1:
            continue
        if view.status != ApprovalStatus.APPROVAL_STATUS_PENDING:
            continue
        counted = {canonical(vote.voter) for vote in view.votes}
        for gate in request.gates:
            for voter in sorted(proposed.voters(gate, FOR_EVER) - counted):
                yield found(account, Breach.LOST, f"the yes of {voter} to {view.type} is stored, but does not count")


def _due(owed: Expectation) -> bool:
    return owed.HasField("due_time")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def _name(status: FlowStatus.ValueType) -> str:
    return "open" if status == OPEN else FlowStatus.Name(status).removeprefix("FLOW_STATUS_")
