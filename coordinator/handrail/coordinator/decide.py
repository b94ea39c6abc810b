"""`decide`: what the coordinator appends next to a flow as it stands, or None. Pure: `now` is an argument.

Asked again after every append until it answers None; a crash in between is harmless, because the same gap is found
again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from handrail.coordinator import compensate, entries
from handrail.mesh.envelope import Entry
from handrail.mesh.flow import MESSAGE_LIMIT, Ask, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.fold import is_complete, is_final
from handrail.mesh.fold.control import run_subject
from handrail.mesh.fold.status import owes_nothing, rejected_with
from handrail.mesh.template import Consequence, ExpiryPolicy, FailurePolicy, RejectPolicy
from handrail.v1.decision_pb2 import (
    ApprovalCause,
    ApprovalGiven,
    ApprovalRefused,
    Choice,
    EscalationCause,
    FlowResumed,
    HaltMode,
    RuleAction,
    RuleTripped,
)

_END_IT = (Choice.CHOICE_COMPENSATE, Choice.CHOICE_CANCEL, Choice.CHOICE_FAIL)

_HALT_OF_CHOICE = {
    Choice.CHOICE_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    Choice.CHOICE_CANCEL: HaltMode.HALT_MODE_CANCEL,
    Choice.CHOICE_FAIL: HaltMode.HALT_MODE_FAIL,
}

_ACTION_OF_RULE = {
    Consequence.ESCALATE: RuleAction.RULE_ACTION_ESCALATE,
    Consequence.COMPENSATE: RuleAction.RULE_ACTION_COMPENSATE,
    Consequence.FAIL: RuleAction.RULE_ACTION_FAIL,
    Consequence.COMPLETE: RuleAction.RULE_ACTION_COMPLETE,
}

_HALT_OF_RULE = {
    Consequence.ESCALATE: HaltMode.HALT_MODE_HOLD,
    Consequence.COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    Consequence.FAIL: HaltMode.HALT_MODE_FAIL,
    Consequence.COMPLETE: HaltMode.HALT_MODE_COMPLETE,
}


def decide(flow: Flow, now: datetime) -> Entry | None:
    """The next message to append, or None when nothing is due at `now`."""
    if flow.first is None or flow.closed:
        return None
    questions: tuple[Callable[[Flow, datetime], Entry | None], ...] = (_flood, _wish, _rules)
    if flow.halt is None:
        questions += (_proposals, _runs, compensate.orphans, _deadline, _stranded)
    else:
        questions += (compensate.halted,)
    return next((entry for ask in questions if (entry := ask(flow, now)) is not None), None)


def _flood(flow: Flow, now: datetime) -> Entry | None:
    if flow.message_count < MESSAGE_LIMIT or is_final(flow):
        return None
    reason = f"the flow holds {flow.message_count} messages; the limit is {MESSAGE_LIMIT}"
    matter = entries.escalated(flow, EscalationCause.ESCALATION_CAUSE_FLOODED, reason, _END_IT, now, subject="messages")
    if matter is not None and flow.halt is None:
        return entries.halted(flow, HaltMode.HALT_MODE_HOLD, reason, now)
    return matter


def _wish(flow: Flow, now: datetime) -> Entry | None:
    wish = flow.wish
    if wish is None:
        return None
    if wish.choice == Choice.CHOICE_RESUME:
        return entries.decision(flow, FlowResumed(by=wish.by, reason=wish.reason), about="", now=now)
    if wish.choice == Choice.CHOICE_REJECT:
        proposal = flow.proposals[wish.subject_id]
        return _refusal(flow, proposal, ApprovalCause.APPROVAL_CAUSE_RESOLUTION, now, voter=wish.by, why=wish.reason)
    return entries.halted(flow, _HALT_OF_CHOICE[wish.choice], wish.reason, now, by=wish.by)


def _rules(flow: Flow, now: datetime) -> Entry | None:
    trip = next((trip for trip in flow.trips.values() if not trip.settled), None)
    if trip is None:
        return None
    rule = flow.template.rules[trip.rule]
    if not trip.recorded:
        message = RuleTripped(
            rule=trip.rule,
            event_id=trip.event_id,
            sequence=trip.sequence,
            then=_ACTION_OF_RULE[rule.then],
            detail=trip.detail,
        )
        return entries.decision(flow, message, about=trip.rule, now=now)
    reason = f"rule {trip.rule} tripped: {trip.detail}"
    if rule.then is not Consequence.ESCALATE or flow.halt is None:
        return entries.halted(flow, _HALT_OF_RULE[rule.then], reason, now)
    return entries.escalated(
        flow,
        EscalationCause.ESCALATION_CAUSE_RULE,
        reason,
        (Choice.CHOICE_RESUME, *_END_IT),
        now,
        subject=trip.rule,
    )


def _proposals(flow: Flow, now: datetime) -> Entry | None:
    for policy, mode in (
        (RejectPolicy.COMPENSATE, HaltMode.HALT_MODE_COMPENSATE),
        (RejectPolicy.FAIL, HaltMode.HALT_MODE_FAIL),
    ):
        rejected = rejected_with(flow, policy)
        if rejected is not None:
            return entries.halted(flow, mode, f"proposal {rejected} was rejected", now)
    for proposal in flow.proposals.values():
        entry = _proposal(flow, proposal, now)
        if entry is not None:
            return entry
    return None


def _proposal(flow: Flow, proposal: Proposal, now: datetime) -> Entry | None:
    event_id, step = proposal.recorded.event_id, proposal.recorded.event.step
    match proposal.state:
        case ProposalState.APPROVED:
            return entries.release(proposal)
        case ProposalState.EVALUATED if not proposal.asks:
            return entries.release(proposal)
        case ProposalState.EVALUATED if any(ask.nobody_qualifies for ask in proposal.asks):
            return entries.escalated(
                flow,
                EscalationCause.ESCALATION_CAUSE_NO_APPROVER,
                f"{proposal.recorded.type} needs approval, and who asked for it can't be told: nobody qualifies",
                (Choice.CHOICE_REJECT, *_END_IT),
                now,
                subject=event_id,
                step=step,
            )
        case ProposalState.EVALUATED:
            return entries.approval_requested(flow, proposal, now)
        case ProposalState.PENDING:
            expired = next((a for a in proposal.asks if (due := proposal.expiry(a)) is not None and due <= now), None)
            return None if expired is None else _expired(flow, proposal, expired, now)
    return None


def _expired(flow: Flow, proposal: Proposal, ask: Ask, now: datetime) -> Entry | None:
    event_id = proposal.recorded.event_id
    match ask.gate.on_expiry:
        case ExpiryPolicy.APPROVE:
            message = ApprovalGiven(
                proposal_id=event_id,
                digest=proposal.digest,
                cause=ApprovalCause.APPROVAL_CAUSE_EXPIRY,
                comment=f"gate {ask.gate.name} approves when nobody answers",
            )
            return entries.decision(flow, message, about=f"{event_id}:expiry", now=now)
        case ExpiryPolicy.ESCALATE:
            return entries.escalated(
                flow,
                EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED,
                f"nobody answered gate {ask.gate.name} within {ask.gate.expires_after}",
                (Choice.CHOICE_EXTEND, Choice.CHOICE_REJECT, *_END_IT),
                now,
                subject=f"{event_id}:{proposal.requested_at}",
                step=proposal.recorded.event.step,
            )
        case _:
            why = f"gate {ask.gate.name} rejects when nobody answers"
            return _refusal(flow, proposal, ApprovalCause.APPROVAL_CAUSE_EXPIRY, now, why=why)


def _refusal(
    flow: Flow,
    proposal: Proposal,
    cause: ApprovalCause.ValueType,
    now: datetime,
    *,
    voter: str = "",
    why: str,
) -> Entry:
    message = ApprovalRefused(
        proposal_id=proposal.recorded.event_id,
        digest=proposal.digest,
        voter=voter,
        comment=why,
        cause=cause,
        proposal=proposal.recorded.event.data,
    )
    about = f"{proposal.recorded.event_id}:{ApprovalCause.Name(cause)}"
    return entries.decision(flow, message, about=about, now=now)


def _runs(flow: Flow, now: datetime) -> Entry | None:
    for run in flow.runs.values():
        entry = _run(flow, run, now)
        if entry is not None:
            return entry
    return None


def _run(flow: Flow, run: StepRun, now: datetime) -> Entry | None:
    match run.state:
        case RunState.OWED if now >= run.deadline:
            return entries.step_timed_out(flow, run, now)
        case RunState.BACKOFF if run.retry_at is not None and now >= run.retry_at:
            return entries.retry(flow, run, now)
        case RunState.NOT_STARTED:
            return entries.retry(flow, run, now)
        case RunState.FAILED:
            return _failed(flow, run, now)
    return None


def _failed(flow: Flow, run: StepRun, now: datetime) -> Entry | None:
    reason = f"step {run.step.name} failed for good after {run.attempt} attempts: {run.last_error}"
    match run.step.on_failure:
        case FailurePolicy.COMPENSATE:
            return entries.halted(flow, HaltMode.HALT_MODE_COMPENSATE, reason, now)
        case FailurePolicy.FAIL:
            return entries.halted(flow, HaltMode.HALT_MODE_FAIL, reason, now)
        case _:
            return entries.escalated(
                flow,
                EscalationCause.ESCALATION_CAUSE_STEP_FAILED,
                reason,
                (Choice.CHOICE_RETRY, *_END_IT),
                now,
                subject=run_subject(run),
                step=run.step.name,
            )


def _deadline(flow: Flow, now: datetime) -> Entry | None:
    if now < flow.deadline or is_final(flow):
        return None
    return entries.escalated(
        flow,
        EscalationCause.ESCALATION_CAUSE_DEADLINE,
        f"the flow is not done within {flow.template.deadline}",
        (Choice.CHOICE_RESUME, *_END_IT),
        now,
        subject="deadline",
    )


def _stranded(flow: Flow, now: datetime) -> Entry | None:
    if is_complete(flow) or not owes_nothing(flow) or flow.escalations or flow.wish is not None:
        return None
    newest = next(reversed(flow.facts), "")
    return entries.escalated(
        flow,
        EscalationCause.ESCALATION_CAUSE_STRANDED,
        f"nobody owes anything, and none of {', '.join(sorted(flow.template.completes_with))} is there",
        _END_IT,
        now,
        subject=newest,
    )
