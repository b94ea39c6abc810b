"""Decisions about undoing effects: the plan, the commands and the time-outs. Pure."""

from __future__ import annotations

from datetime import datetime

from handrail.coordinator.decide import messages
from handrail.mesh.flow import Effect, EffectState, Flow
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import CompensationStarted


def undos(flow: Flow, now: datetime) -> Entry | None:
    """Returns the next message about an undo, or None.

    No undo begins while an outcome is unknown: a late outcome would be newer, and newer effects are undone first. Undos
    in progress continue.
    """
    targets = flow.undo_targets()
    waits = flow.is_undoing and bool(flow.open_outcomes())
    if targets and flow.is_undoing and not waits and not flow.compensation_started:
        return _plan(flow, targets, now)
    for effect in targets:
        if effect.state is EffectState.DONE:
            if not waits:
                return messages.undo(flow, effect, now)
        elif (entry := _under_way(flow, effect, now)) is not None:
            return entry
        waits = waits or not flow.template.parallel_undo
    return None


def _plan(flow: Flow, targets: list[Effect], now: datetime) -> Entry:
    event_ids = [effect.recorded.event_id for effect in targets]
    message = CompensationStarted(event_ids=event_ids, parallel=flow.template.parallel_undo)
    return messages.decision(flow, message, about="", now=now)


def _under_way(flow: Flow, effect: Effect, now: datetime) -> Entry | None:
    if effect.retry_at is not None and now >= effect.retry_at:
        return messages.undo(flow, effect, now)
    if effect.deadline is not None and now >= effect.deadline:
        return messages.undo_timed_out(flow, effect, effect.deadline, now)
    return None
