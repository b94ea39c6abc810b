"""Differences for people: a changed verdict with its reasons, and the recorded course of the flow."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.analysis.replay.changes import Change, GateChange, RuleChange, changes, gate_verdict, rule_verdict
from handrail.analysis.replay.observed import Observed
from handrail.analysis.replay.reasons import values_read
from handrail.analysis.replay.trial import Asked, Facts, Trial, Tripped
from handrail.mesh.flow import Flow, Proposal, ProposalState
from handrail.mesh.fold import status
from handrail.mesh.printable import cut
from handrail.mesh.wire.envelope import Recorded, timestamp
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.template_service_pb2 import PolicyVerdict, ReplayDifference

_LONGEST = 1000


def differences(observed: Observed) -> Iterator[ReplayDifference]:
    """All verdicts on a flow that the changed template changes."""
    for change in changes(observed.then, observed.now):
        recorded = change.recorded
        difference = ReplayDifference(
            flow_id=recorded.event.flow_id,
            template_version=recorded.event.template_version,
            event_id=recorded.event_id,
            sequence=recorded.sequence,
            time=timestamp(recorded.time),
            type=recorded.type,
        )
        _explain(difference, change, observed)
        yield difference


def _explain(difference: ReplayDifference, change: Change, observed: Observed) -> None:
    then, now, recorded = observed.then, observed.now, change.recorded
    if isinstance(change, GateChange):
        difference.gate = change.gate
        difference.then = gate_verdict(then, change.gate, recorded, change.then)
        difference.now = gate_verdict(now, change.gate, recorded, change.now)
        before = _gate_reason(then, change, change.then)
        after = _gate_reason(now, change, change.now)
        difference.recorded = cut(_recorded_proposal(observed.flow, recorded), _LONGEST)
    else:
        difference.rule = change.rule
        difference.then = rule_verdict(then, change.rule, recorded, change.then)
        difference.now = rule_verdict(now, change.rule, recorded, change.now)
        before = _rule_reason(then, change, change.then)
        after = _rule_reason(now, change, change.now)
        difference.recorded = cut(_recorded_rule(observed.flow, change.rule), _LONGEST)
    difference.reason = cut(f"then: {before}; now: {after}", _LONGEST)


def _gate_reason(trial: Trial, change: GateChange, asked: Asked | None) -> str:
    name, recorded, facts = change.gate, change.recorded, _facts(change)
    if asked is not None and asked.error:
        return f"it asks, because it can't be evaluated: {asked.error}"
    gate = trial.template.gates.get(name)
    match gate_verdict(trial, name, recorded, asked):
        case PolicyVerdict.POLICY_VERDICT_ABSENT:
            return f"no such gate on {recorded.type}"
        case PolicyVerdict.POLICY_VERDICT_NOT_REACHED:
            return _ended(trial)
        case _ if gate is None or gate.when is None:
            return "it always asks"
        case verdict:
            holds = "holds" if verdict == PolicyVerdict.POLICY_VERDICT_ASKS else "does not hold"
            values = values_read(gate.when, recorded, trial.template.contracts, facts)
            return f'"{cut(gate.when.text)}" {holds}{_with(values)}'


def _rule_reason(trial: Trial, change: RuleChange, tripped: Tripped | None) -> str:
    if tripped is not None:
        where = "" if tripped.recorded is change.recorded else f" at sequence {tripped.recorded.sequence}"
        if tripped.error:
            return f"it trips{where}, because it can't be evaluated: {tripped.error}"
        values = values_read(tripped.rule.when, tripped.recorded, trial.template.contracts, tripped.facts)
        return f'"{cut(tripped.rule.when.text)}" holds{where}{_with(values)}'
    match rule_verdict(trial, change.rule, change.recorded, tripped):
        case PolicyVerdict.POLICY_VERDICT_ABSENT:
            return "no such rule"
        case PolicyVerdict.POLICY_VERDICT_NOT_REACHED:
            return _ended(trial)
    rule = trial.template.rules[change.rule]
    if change.recorded.type not in rule.on:
        return f"it is not evaluated at {change.recorded.type}"
    values = values_read(rule.when, change.recorded, trial.template.contracts, _facts(change))
    return f'"{cut(rule.when.text)}" does not hold{_with(values)}'


def _facts(change: Change) -> Facts | None:
    either = change.now or change.then
    return either.facts if either is not None else None


def _with(values: str) -> str:
    return f" with {values}" if values else ""


def _ended(trial: Trial) -> str:
    end = trial.end
    return f"rule {end.rule.name} had ended the flow at sequence {end.recorded.sequence}" if end else "it had ended"


def _recorded_proposal(flow: Flow, recorded: Recorded) -> str:
    proposal = flow.proposals.get(recorded.event_id)
    return "it counted as a plain fact" if proposal is None else _told(proposal)


def _told(proposal: Proposal) -> str:
    yes = ", ".join(ballot.voter for ballot in proposal.ballots if ballot.approve)
    match proposal.state:
        case ProposalState.RELEASED if yes:
            return f"released after a yes of {yes}"
        case ProposalState.RELEASED:
            return "released"
        case ProposalState.REJECTED:
            no = next((ballot.voter for ballot in proposal.ballots if not ballot.approve), "")
            return f"refused by {no}" if no else "refused"
        case state:
            return f"a proposal, {state.name.lower()}"


def _recorded_rule(flow: Flow, rule: str) -> str:
    trip = flow.trips.get(rule)
    tripped = f"the rule tripped at sequence {trip.sequence}" if trip is not None else "no trip of this rule"
    return f"{tripped}; the flow is {FlowStatus.Name(status(flow)).removeprefix('FLOW_STATUS_')}"
