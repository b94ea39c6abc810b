"""Timers: when the coordinator has to look at a flow again. Pure.

A timer is named by what it waits for and its time, so that an old one can't replace a new one; a stray one is
harmless, because whoever handles it folds the flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from handrail.mesh.flow import Effect, Flow, ProposalState, RunState, StepRun
from handrail.mesh.fold import is_final


def timers(flow: Flow) -> dict[str, datetime]:
    """The timers that a flow as it stands wants: name -> due."""
    if flow.first is None or is_final(flow):
        return {}
    return dict(_wanted(flow))


def _wanted(flow: Flow) -> Iterator[tuple[str, datetime]]:
    runs = flow.runs.values() if flow.halt is None else flow.open_outcomes()
    for run in runs:
        due = _run_due(run)
        if due is not None:
            yield _name(f"{run.step.name}-{run.root}-{run.run}-{run.attempt}", due), due
    for effect in flow.effects.values():
        due = _undo_due(effect)
        if due is not None and (flow.is_undoing or (effect.orphan and flow.halt is None)):
            yield _name(f"undo-{effect.recorded.event_id}-{effect.attempt}", due), due
    if flow.halt is not None:
        return
    for event_id, proposal in flow.proposals.items():
        if proposal.state is ProposalState.PENDING and proposal.expires_at is not None:
            yield _name(f"approval-{event_id}", proposal.expires_at), proposal.expires_at
    if not flow.escalations:
        yield _name("deadline", flow.deadline), flow.deadline


def _run_due(run: StepRun) -> datetime | None:
    match run.state:
        case RunState.OWED:
            return run.deadline
        case RunState.BACKOFF:
            return run.retry_at
    return None


def _undo_due(effect: Effect) -> datetime | None:
    return effect.retry_at or effect.deadline if effect.stands else None


def _name(what: str, due: datetime) -> str:
    return f"{what}-{int(due.timestamp() * 1000)}"
