"""What a flow waits for next: from whom, until when, and what happens otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.api.views.acts import summary
from handrail.coordinator.decide.grants import OPERATOR
from handrail.mesh.flow import Ask, Effect, EffectState, Escalation, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.fold import is_final
from handrail.mesh.template.persons import ActState, has_expired
from handrail.mesh.wire.envelope import timestamp
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.decision_pb2 import Choice
from handrail.v1.flow_service_pb2 import Expectation
from handrail.v1.template_pb2 import ExpiryAction, FailureAction

_WHEN_FAILED = {
    FailureAction.FAILURE_ACTION_ESCALATE: "a person is asked",
    FailureAction.FAILURE_ACTION_COMPENSATE: "the flow's effects are undone",
    FailureAction.FAILURE_ACTION_FAIL: "the flow ends as failed",
}
_WHEN_EXPIRED = {
    ExpiryAction.EXPIRY_ACTION_REJECT: "it counts as refused",
    ExpiryAction.EXPIRY_ACTION_APPROVE: "it counts as approved",
    ExpiryAction.EXPIRY_ACTION_ESCALATE: "a person is asked",
    ExpiryAction.EXPIRY_ACTION_WAIT: "the flow waits",
}


def expectations(flow: Flow, unfit: frozenset[str] = frozenset()) -> list[Expectation]:
    """Lists everything that the flow waits for, people first; empty only after its end.

    `unfit` are the agents that have live workers, but none that fits the flow's version.
    """
    if flow.first is None or is_final(flow):
        return []
    owed = [*_of_escalations(flow), *_of_proposals(flow), *_of_runs(flow), *_of_undos(flow)]
    for each in owed:
        if each.by_agent in unfit:
            each.what += (
                f"; no live worker of {each.by_agent} fits version {flow.template.version}: start one that does"
            )
    return [*_of_acts(flow), *(owed or [_of_coordinator(flow)])]


def _of_acts(flow: Flow) -> Iterator[Expectation]:
    for pending in flow.acts.values():
        if (
            pending.state is ActState.PENDING
            and flow.last_time is not None
            and not has_expired(pending, flow.last_time)
        ):
            yield Expectation(
                what=f"the confirmation of another person than {pending.by}: {summary(pending.data)}",
                by_roles=[OPERATOR],
                due_time=timestamp(pending.expires),
                subject_id=qualified(flow, pending.act_id),
                otherwise="nothing is done",
            )


def _of_escalations(flow: Flow) -> Iterator[Expectation]:
    for escalation in flow.escalations.values():
        yield Expectation(
            what=f"an answer: {escalation.reason}",
            by_roles=[OPERATOR],
            step=escalation.step,
            subject_id=escalation.escalation_id,
            otherwise=f"the flow waits; choices are {_choices(escalation)}",
        )


def _of_proposals(flow: Flow) -> Iterator[Expectation]:
    for proposal in flow.proposals.values():
        if proposal.state is ProposalState.PENDING:
            yield from (_of_gate(flow, proposal, ask) for ask in proposal.asks if not ask.passed)
        elif proposal.state in (ProposalState.EVALUATED, ProposalState.APPROVED) and not flow.is_halted:
            asks = proposal.state is ProposalState.EVALUATED and proposal.asks
            yield Expectation(
                what=f"{'the question for approval' if asks else 'the release'} of {proposal.recorded.type}",
                by_agent=COORDINATOR,
                step=proposal.recorded.event.step,
                subject_id=qualified(flow, proposal.recorded.event_id),
                otherwise="the flow waits until a coordinator runs",
            )


def _of_gate(flow: Flow, proposal: Proposal, ask: Ask) -> Expectation:
    there = f", {len(ask.voters)} given" if ask.voters else ""
    people = "one person" if ask.gate.quorum == 1 else f"{ask.gate.quorum} people"
    due = proposal.expiry(ask)
    return Expectation(
        what=f"approval of {proposal.recorded.type} by {people} (gate {ask.gate.name}{there})",
        by_roles=sorted(ask.gate.roles),
        due_time=None if due is None else timestamp(due),
        step=proposal.recorded.event.step,
        subject_id=qualified(flow, proposal.recorded.event_id),
        otherwise=_WHEN_EXPIRED[ask.gate.on_expiry if due is not None else ExpiryAction.EXPIRY_ACTION_WAIT],
    )


def _of_runs(flow: Flow) -> Iterator[Expectation]:
    for run in flow.runs.values():
        # A halted flow waits for an outcome only if an effect may have happened.
        if flow.is_halted and not run.may_have_effect:
            continue
        if run.state is RunState.OWED:
            yield _of_agent(run)
        elif run.state is RunState.BACKOFF:
            yield _of_retry(run)


def _of_agent(run: StepRun) -> Expectation:
    types = " or ".join(sorted(run.step.emits))
    attempt = f", attempt {run.attempt} of {run.budget}" if run.attempt > 1 else ""
    return Expectation(
        what=f"the outcome of step {run.step.name}: {types}{attempt}{', through the API' if run.step.external else ''}",
        by_agent=run.step.agent,
        due_time=timestamp(run.deadline),
        step=run.step.name,
        subject_id=run.root,
        otherwise=_after_failure(run.attempt, run.budget, _WHEN_FAILED[run.step.on_failure]),
    )


def _of_retry(run: StepRun) -> Expectation:
    return Expectation(
        what=f"attempt {run.attempt + 1} of {run.budget} of step {run.step.name}, after: {run.last_error}",
        by_agent=COORDINATOR,
        due_time=None if run.retry_at is None else timestamp(run.retry_at),
        step=run.step.name,
        subject_id=run.root,
        otherwise="the flow waits until a coordinator runs",
    )


def _of_undos(flow: Flow) -> Iterator[Expectation]:
    waiting = {effect.recorded.event_id: effect for effect in flow.undo_targets()}
    waiting.update((event_id, effect) for event_id, effect in flow.effects.items() if effect.orphan and effect.stands)
    for effect in waiting.values():
        if effect.state is EffectState.UNDOING:
            yield _of_undo(effect)
        elif effect.state is EffectState.DONE:
            yield Expectation(
                what=f"the undo of {effect.recorded.type}, when its turn comes",
                by_agent=effect.step.agent,
                step=effect.step.name,
                subject_id=effect.recorded.event_id,
                otherwise="the flow waits until a coordinator runs",
            )


def _of_undo(effect: Effect) -> Expectation:
    attempt = f"attempt {effect.attempt} of {effect.budget}"
    after = f", after: {effect.last_error}" if effect.last_error else ""
    due: datetime | None = effect.deadline or effect.retry_at
    return Expectation(
        what=f"the undo of {effect.recorded.type}, {attempt}{after}",
        by_agent=effect.step.agent if effect.deadline is not None else COORDINATOR,
        due_time=None if due is None else timestamp(due),
        step=effect.step.name,
        subject_id=effect.recorded.event_id,
        otherwise=_after_failure(effect.attempt, effect.budget, "a person is asked"),
    )


def _of_coordinator(flow: Flow) -> Expectation:
    """If nobody owes anything, the flow is about to be decided on or stranded; the coordinator handles both."""
    return Expectation(
        what="a decision on what is next",
        by_agent=COORDINATOR,
        due_time=timestamp(flow.deadline),
        otherwise="a person is asked",
    )


def _after_failure(attempt: int, budget: int, at_last: str) -> str:
    return at_last if attempt >= budget else f"it is retried, up to {budget} attempts; then {at_last}"


def _choices(escalation: Escalation) -> str:
    return ", ".join(Choice.Name(choice).removeprefix("CHOICE_") for choice in escalation.choices)
