"""Matters: decisions that wait for a person, with the reason and the choices.

One list, `matters`, serves three purposes: the coordinator escalates its items, the fold treats other escalations as
void, and an open escalation that drops off the list has settled itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from handrail.mesh.flow import EffectState, Escalation, Flow, Proposal, ProposalState, RunState, Void
from handrail.mesh.flow.step_run import attempts
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import halts, rules
from handrail.mesh.fold.status import is_complete, owes_nothing
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import RULE_ACTION_ESCALATE, Choice, Escalated, EscalationCause
from handrail.v1.template_pb2 import EXPIRY_ACTION_ESCALATE, FAILURE_ACTION_ESCALATE

_END_IT = (Choice.CHOICE_COMPENSATE, Choice.CHOICE_CANCEL, Choice.CHOICE_FAIL)


@dataclass(frozen=True, slots=True)
class Matter:
    """A decision for a person: `subject` and `step` identify it within its cause."""

    cause: EscalationCause.ValueType
    reason: str
    choices: tuple[Choice.ValueType, ...]
    subject: str = ""
    step: str = ""

    def id(self, flow: Flow) -> str:
        """The id of its escalation: the same matter always has the same id."""
        return ids.escalation_id(flow.flow_id, EscalationCause.Name(self.cause), f"{self.step}:{self.subject}")


def matters(flow: Flow, now: datetime) -> Iterator[Matter]:
    """All matters that need a person at `now`, escalated or not."""
    if flow.first is None or flow.closed:
        return
    yield from _of_undos(flow)
    if not flow.goes_on:
        yield from _of_unknown_outcomes(flow)
        yield from _of_way_back(flow)
        return
    yield from _of_hold(flow)
    yield from _of_proposals(flow, now)
    yield from _of_failures(flow)
    yield from _of_flow(flow, now)


def due(flow: Flow, now: datetime) -> Matter | None:
    """The first matter that is not escalated yet, or None."""
    for matter in matters(flow, now):
        if not _is_escalated(flow, matter):
            return matter
    return None


def waits_for_deadline(flow: Flow) -> bool:
    """Whether the deadline of the flow still needs watching."""
    return flow.goes_on and not is_complete(flow) and not _is_escalated(flow, _deadline(flow))


def apply_escalated(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies an escalation. Void if the matter has settled itself, or was already escalated."""
    escalated = Escalated.FromString(recorded.event.data.value)
    if escalated.escalation_id in flow.escalated:
        return Void("the matter is already escalated")
    if all(matter.id(flow) != escalated.escalation_id for matter in matters(flow, recorded.time)):
        return Void("the matter has settled itself")
    flow.escalated |= {escalated.escalation_id}
    flow.escalations[escalated.escalation_id] = Escalation(
        escalated.escalation_id,
        escalated.cause,
        escalated.subject_id,
        escalated.step,
        escalated.reason,
        tuple(escalated.choices),
        recorded.time,
    )
    about = escalated.subject_id.partition(":")[0]
    if escalated.cause == EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED:
        flow.proposals[about] = replace(flow.proposals[about], state=ProposalState.EXPIRED)
    if escalated.cause == EscalationCause.ESCALATION_CAUSE_RULE:
        flow.trips[about] = replace(flow.trips[about], settled=True)
    return None


def drop_settled(flow: Flow, now: datetime) -> None:
    """Closes escalations that settled themselves. If the same matter comes up again, it is escalated again."""
    if not flow.escalations:
        return
    standing = {matter.id(flow) for matter in matters(flow, now)}
    for escalation_id in [known for known in flow.escalations if known not in standing]:
        del flow.escalations[escalation_id]
        flow.escalated -= {escalation_id}


def _is_escalated(flow: Flow, matter: Matter) -> bool:
    # The id is a hash: without escalations nobody needs it.
    return bool(flow.escalated) and matter.id(flow) in flow.escalated


def _of_undos(flow: Flow) -> Iterator[Matter]:
    for effect in flow.undo_targets():
        if effect.state is EffectState.UNDO_FAILED:
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_UNDO_FAILED,
                f"the undo of {effect.recorded.type} by agent {effect.step.agent} failed for good after "
                f"{attempts(effect.attempt)}: {effect.last_error}",
                (Choice.CHOICE_RETRY, Choice.CHOICE_MARK_UNDONE, Choice.CHOICE_ACCEPT),
                effect.subject,
                effect.step.name,
            )


def _of_unknown_outcomes(flow: Flow) -> Iterator[Matter]:
    for run in flow.open_outcomes():
        if run.state is RunState.FAILED:
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_OUTCOME_UNKNOWN,
                f"step {run.step.name} gave no outcome in {attempts(run.attempt)}: whether it had its "
                "effect is unknown",
                (Choice.CHOICE_RETRY, Choice.CHOICE_ACCEPT),
                run.subject,
                run.step.name,
            )


def _of_way_back(flow: Flow) -> Iterator[Matter]:
    halt = flow.halt
    if halt is not None and halt.to_step and not flow.undo_targets() and not flow.open_outcomes():
        yield Matter(
            EscalationCause.ESCALATION_CAUSE_COMPENSATED_TO_STEP,
            f"compensated back to step {halt.to_step}: {halt.reason}",
            (Choice.CHOICE_RESUME, Choice.CHOICE_COMPENSATE, Choice.CHOICE_CANCEL),
            str(halt.recorded.sequence),
        )


def _of_hold(flow: Flow) -> Iterator[Matter]:
    if flow.halt is None or not flow.is_held:
        return
    for trip in flow.trips.values():
        if trip.recorded and trip.then == RULE_ACTION_ESCALATE:
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_RULE,
                rules.reason(trip),
                (Choice.CHOICE_RESUME, *_END_IT),
                f"{trip.rule}:{trip.sequence}",
            )
    if flow.diverged is not None:
        yield Matter(
            EscalationCause.ESCALATION_CAUSE_DIVERGED,
            halts.diverged(flow.diverged),
            (Choice.CHOICE_RESUME, *_END_IT),
            str(flow.diverged.sequence),
        )
    if flow.halt.reason.startswith(halts.TOO_LARGE):
        subject = str(flow.halt.recorded.sequence)
        choices = (Choice.CHOICE_RESUME, *_END_IT)
        yield Matter(EscalationCause.ESCALATION_CAUSE_TOO_LARGE, flow.halt.reason, choices, subject)
    if flow.message_count >= flow.message_limit:
        subject = str(flow.halt.recorded.sequence)
        yield Matter(EscalationCause.ESCALATION_CAUSE_FLOODED, halts.flooded(flow), _END_IT, subject)


def _of_proposals(flow: Flow, now: datetime) -> Iterator[Matter]:
    for proposal in flow.proposals.values():
        about, step = proposal.recorded.event_id, proposal.recorded.event.step
        if proposal.state is ProposalState.EVALUATED and proposal.nobody_qualifies:
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_NO_APPROVER,
                f"{proposal.recorded.type} needs approval, and its requester is unknown: nobody qualifies",
                (Choice.CHOICE_REJECT, *_END_IT),
                about,
                step,
            )
        elif _expired_to_a_person(proposal, now):
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED,
                f"nobody answered the request to approve {proposal.recorded.type} in time",
                (Choice.CHOICE_EXTEND, Choice.CHOICE_REJECT, *_END_IT),
                f"{about}:{proposal.requested_at}",
                step,
            )


def _expired_to_a_person(proposal: Proposal, now: datetime) -> bool:
    ask = proposal.expired_ask(now)
    return proposal.state is ProposalState.EXPIRED or (ask is not None and ask.gate.on_expiry == EXPIRY_ACTION_ESCALATE)


def _of_failures(flow: Flow) -> Iterator[Matter]:
    for run in flow.runs.values():
        if run.state is RunState.FAILED and run.step.on_failure == FAILURE_ACTION_ESCALATE:
            yield Matter(
                EscalationCause.ESCALATION_CAUSE_STEP_FAILED,
                run.failure,
                (Choice.CHOICE_RETRY, *_END_IT),
                run.subject,
                run.step.name,
            )


def _of_flow(flow: Flow, now: datetime) -> Iterator[Matter]:
    if is_complete(flow):
        return
    if now >= flow.deadline:
        yield _deadline(flow)
    if flow.halt is None and flow.pending_resolution is None and owes_nothing(flow):
        yield Matter(
            EscalationCause.ESCALATION_CAUSE_STRANDED,
            f"nothing is pending, and none of {', '.join(sorted(flow.template.completes_with))} has come",
            _END_IT,
            next(reversed(flow.facts), ""),
        )


def _deadline(flow: Flow) -> Matter:
    return Matter(
        EscalationCause.ESCALATION_CAUSE_DEADLINE,
        f"the flow did not end within {flow.template.deadline}",
        (Choice.CHOICE_RESUME, *_END_IT),
        "deadline",
    )
