"""Timers: when the coordinator has to look at a flow again. Pure.

A timer's name contains what it waits for and its time, so an old timer can't replace a new one. A stray timer is
harmless: its handler folds the flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from handrail.mesh.flow import Flow, RunState, StepRun
from handrail.mesh.fold import escalations, is_final


def timers(flow: Flow) -> dict[str, datetime]:
    """Returns the timers that the flow needs now, name to due time. Once one is due, `decide` returns an entry."""
    if flow.first is None or is_final(flow):
        return {}
    return {f"{what}-{int(due.timestamp() * 1000)}": due for what, due in _wanted(flow)}


def _wanted(flow: Flow) -> Iterator[tuple[str, datetime]]:
    for run in flow.awaited_runs():
        due = _run_due(run)
        if due is not None:
            yield f"{run.step.name}-{run.root}-{run.run}-{run.attempt}", due
    for effect in flow.undo_targets():
        due = effect.retry_at or effect.deadline
        if due is not None:
            yield f"undo-{effect.recorded.event_id}-{effect.attempt}", due
    for event_id, proposal in flow.proposals.items():
        if proposal.next_expiry is not None:
            yield f"approval-{event_id}", proposal.next_expiry
    if escalations.waits_for_deadline(flow):
        yield "deadline", flow.deadline


def _run_due(run: StepRun) -> datetime | None:
    match run.state:
        case RunState.OWED:
            return run.deadline
        case RunState.BACKOFF:
            return run.retry_at
    return None
