"""What the coordinator appends next to a halted flow: outcomes that are still unknown first, then the undos, then the
end."""

from __future__ import annotations

from datetime import datetime

from handrail.coordinator import entries
from handrail.mesh.envelope import Entry
from handrail.mesh.flow import Effect, EffectState, Flow, RunState
from handrail.mesh.fold import settled
from handrail.mesh.fold.control import effect_subject, run_subject
from handrail.v1.decision_pb2 import Choice, CompensationStarted, EscalationCause


def halted(flow: Flow, now: datetime) -> Entry | None:
    """The next message of a halted flow, or None when nothing is due at `now`."""
    if flow.halt is None:
        return None
    final = settled(flow)
    if final is not None:
        return entries.closed(flow, final, flow.halt.reason, now)
    if not flow.is_undoing:
        return _unknown_outcomes(flow, now)
    return _unknown_outcomes(flow, now) or _undos(flow, now) or _back_at_step(flow, now)


def orphans(flow: Flow, now: datetime) -> Entry | None:
    """Undo what came of a run that had been superseded, whatever the flow does."""
    for effect in flow.effects.values():
        if effect.orphan and effect.stands:
            entry = _undo(flow, effect, now)
            if entry is not None:
                return entry
    return None


def _unknown_outcomes(flow: Flow, now: datetime) -> Entry | None:
    for run in flow.open_outcomes():
        match run.state:
            case RunState.OWED if now >= run.deadline:
                return entries.step_timed_out(flow, run, now)
            case RunState.BACKOFF if run.retry_at is not None and now >= run.retry_at:
                return entries.retry(flow, run, now)
            case RunState.FAILED:
                matter = entries.escalated(
                    flow,
                    EscalationCause.ESCALATION_CAUSE_OUTCOME_UNKNOWN,
                    f"step {run.step.name} was started and gave no outcome in {run.attempt} attempts: "
                    "whether it had its effect is unknown",
                    (Choice.CHOICE_RETRY, Choice.CHOICE_ACCEPT),
                    now,
                    subject=run_subject(run),
                    step=run.step.name,
                )
                if matter is not None:
                    return matter
    return None


def _undos(flow: Flow, now: datetime) -> Entry | None:
    targets = flow.undo_targets()
    if not targets:
        return None
    if flow.open_outcomes():
        # What is known later is newer, and so undone earlier: only undos under way go on.
        targets = [effect for effect in targets if effect.state is not EffectState.DONE]
    elif not flow.compensation_started:
        event_ids = [effect.recorded.event_id for effect in targets]
        message = CompensationStarted(event_ids=event_ids, parallel=flow.template.parallel_undo)
        return entries.decision(flow, message, about="", now=now)
    for effect in targets if flow.template.parallel_undo else targets[:1]:
        entry = _undo(flow, effect, now)
        if entry is not None:
            return entry
    return None


def _undo(flow: Flow, effect: Effect, now: datetime) -> Entry | None:
    match effect.state:
        case EffectState.DONE:
            return entries.undo(flow, effect, now)
        case EffectState.UNDOING if effect.retry_at is not None and now >= effect.retry_at:
            return entries.undo(flow, effect, now)
        case EffectState.UNDOING if effect.deadline is not None and now >= effect.deadline:
            return entries.undo_timed_out(flow, effect, effect.deadline, now)
        case EffectState.UNDO_FAILED:
            return entries.escalated(
                flow,
                EscalationCause.ESCALATION_CAUSE_UNDO_FAILED,
                f"the undo of {effect.recorded.type} by agent {effect.step.agent} failed for good after "
                f"{effect.attempt} attempts: {effect.last_error}",
                (Choice.CHOICE_RETRY, Choice.CHOICE_MARK_UNDONE, Choice.CHOICE_ACCEPT),
                now,
                subject=effect_subject(effect),
                step=effect.step.name,
            )
    return None


def _back_at_step(flow: Flow, now: datetime) -> Entry | None:
    if flow.halt is None or not flow.halt.to_step or flow.undo_targets() or flow.open_outcomes():
        return None
    return entries.escalated(
        flow,
        EscalationCause.ESCALATION_CAUSE_COMPENSATED_TO_STEP,
        f"compensated back to step {flow.halt.to_step}: {flow.halt.reason}",
        (Choice.CHOICE_RESUME, Choice.CHOICE_COMPENSATE, Choice.CHOICE_CANCEL),
        now,
        subject=str(flow.halt.recorded.sequence),
    )
