"""Resuming: a held flow continues where it stopped; one that was compensated back to a step continues from there."""

from __future__ import annotations

from datetime import datetime

from handrail.mesh.flow import Flow, Proposal, ProposalState, RunState, StepRun, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import approvals, attempts
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import Choice
from handrail.v1.error_reason_pb2 import ErrorReason


def apply_resumed(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a resume: steps that were not started, or went silent meanwhile, are due at once."""
    if not may_resume(flow):
        return Void("no person decided to resume it, or it is not ready", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if flow.halt is not None and flow.halt.to_step:
        _take_back(flow, flow.halt.floor, recorded.time)
    flow.halt = None
    flow.pending_resolution = None
    flow.compensation_started = False
    flow.looked_at = recorded.sequence
    for run in list(flow.runs.values()):
        overdue = run.state is RunState.OWED and run.deadline <= recorded.time
        if overdue or run.state is RunState.NOT_STARTED:
            attempts.reopen(flow, run, recorded.time)
    return None


def may_resume(flow: Flow) -> bool:
    """Whether a person decided to resume the flow, and all necessary undos are done."""
    if flow.halt is None or flow.pending_resolution is None or flow.pending_resolution.choice != Choice.CHOICE_RESUME:
        return False
    return flow.is_held or not (flow.undo_targets() or flow.open_outcomes())


def _take_back(flow: Flow, floor: int, now: datetime) -> None:
    """Takes back everything after a position in the stream, so that the steps after it run again."""
    for event_id, fact in list(flow.facts.items()):
        if fact.sequence > floor:
            del flow.facts[event_id]
            kept = tuple(r for r in flow.facts_by_type[fact.type] if r.event_id != event_id)
            flow.facts_by_type[fact.type] = kept
    for trip in list(flow.trips.values()):
        if trip.sequence > floor:
            del flow.trips[trip.rule]
    for proposal in list(flow.proposals.values()):
        _take_back_proposal(flow, proposal, floor)
    for run in list(flow.runs.values()):
        _take_back_run(flow, run, floor, now)


def _take_back_proposal(flow: Flow, proposal: Proposal, floor: int) -> None:
    event_id = proposal.recorded.event_id
    released_since = proposal.state is ProposalState.RELEASED and event_id not in flow.facts
    if proposal.recorded.sequence > floor or released_since:
        flow.proposals[event_id] = replace(proposal, state=ProposalState.WITHDRAWN)
        return
    refused_since = proposal.refused_by is not None and proposal.refused_by.sequence > floor
    withdrawn_by_halt = proposal.state is ProposalState.WITHDRAWN and _is_output(flow, event_id)
    if refused_since or withdrawn_by_halt:
        approvals.ask_anew(flow, proposal)


def _take_back_run(flow: Flow, run: StepRun, floor: int, now: datetime) -> None:
    if run.state is RunState.SUPERSEDED:
        return
    if run.trigger.sequence > floor:
        flow.runs[run.key] = replace(run, state=RunState.SUPERSEDED, unknown=frozenset())
        flow.joined -= {run.step.name}
    elif any(_is_taken_back(flow, event_id) for event_id in run.outputs.values()):
        attempts.reopen(flow, run, now, anew=True)
    elif run.state is RunState.FAILED:
        attempts.reopen(flow, run, now)


def _is_taken_back(flow: Flow, event_id: str) -> bool:
    proposal = flow.proposals.get(event_id)
    if proposal is not None and proposal.state is not ProposalState.RELEASED:
        return proposal.state is ProposalState.WITHDRAWN
    return event_id not in flow.facts


def _is_output(flow: Flow, event_id: str) -> bool:
    return any(event_id in run.outputs.values() for run in flow.runs.values() if run.state is not RunState.SUPERSEDED)
