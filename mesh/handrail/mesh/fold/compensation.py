"""Compensation: commands to undo effects, their outcomes and their failures."""

from __future__ import annotations

from handrail.mesh.flow import Effect, EffectState, Flow, RunState, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import deadlines
from handrail.mesh.template import STEP_COMPLETED, UndoSpec
from handrail.mesh.wire.envelope import Recorded, from_timestamp
from handrail.v1.decision_pb2 import StepTimedOut
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind, StepFailed, StepProgress


def apply_started(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the recorded plan of the compensation."""
    if not flow.is_undoing or flow.compensation_started:
        return Void("no compensation can begin now")
    flow.compensation_started = True
    return None


def apply_undo(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies an undo command: it begins the next attempt."""
    event = recorded.event
    effect = flow.effects.get(event.root)
    if effect is None or effect.step.undo is None or event.attempt != effect.attempt + 1:
        return Void("no such undo is due")
    if effect not in flow.undo_targets() or effect.deadline is not None or effect.state is EffectState.UNDO_FAILED:
        return Void(f"the effect is {effect.state.name.lower().replace('_', ' ')}")
    if effect.step.agent != recorded.agent:
        return Void(f"step {effect.step.name} belongs to agent {effect.step.agent}")
    flow.effects[event.root] = replace(
        effect,
        state=EffectState.UNDOING,
        attempt=event.attempt,
        deadline=recorded.time + effect.step.undo.timeout,
        since=recorded.time,
        asked=recorded.sequence,
        queued=False,
        begun=False,
        counted_from=None,
        retry_at=None,
        starts=effect.starts.next_attempt(),
    )
    return None


def apply_undone(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the report that an effect is undone. It counts at any time, even if no undo was requested."""
    event = recorded.event
    effect = flow.effects.get(event.root)
    if effect is None or effect.step.undo is None:
        return Void(f"there is no effect {event.root} to undo", divergence=DivergenceKind.DIVERGENCE_KIND_NOT_TRIGGERED)
    if effect.step.agent != recorded.agent:
        return Void(
            f"step {effect.step.name} belongs to agent {effect.step.agent}, not {recorded.agent}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
        )
    if recorded.type != STEP_COMPLETED and recorded.type not in effect.step.undo.emits:
        return Void(
            f"the undo of step {effect.step.name} does not emit {recorded.type}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
            DivergenceKind.DIVERGENCE_KIND_WRONG_TYPE,
        )
    if effect.undone_by is not None:
        return Void(
            "its undo is already reported: only the first answer counts", ErrorReason.ERROR_REASON_DIFFERENT_ANSWER
        )
    flow.effects[event.root] = replace(
        effect, state=EffectState.UNDONE, deadline=None, retry_at=None, undone_by=recorded
    )
    _mark_run_undone(flow, effect)
    return None


def undo_failed(flow: Flow, recorded: Recorded, failed: StepFailed) -> Void | None:
    """Applies the report of an agent that an attempt to undo failed."""
    effect = flow.effects.get(failed.undo_of)
    if effect is None or effect.step.agent != recorded.agent:
        return Void("no such undo belongs to this agent", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if effect.deadline is None or effect.attempt != recorded.event.attempt:
        return Void("this attempt of the undo is over")
    text = f"{failed.error_class}: {failed.text}"
    effect = replace(effect, starts=effect.starts.failed(failed.error_class))
    flow.effects[failed.undo_of] = _after_failure(effect, recorded, text, retryable=failed.retryable)
    return None


def is_being_undone(flow: Flow, recorded: Recorded) -> bool:
    """Whether a message is about a running undo: the step's agent reports on an effect of the same step.

    The root alone does not tell: a step that the same event triggered has the same root.
    """
    effect = flow.effects.get(recorded.event.root)
    return effect is not None and effect.step.name == recorded.event.step and effect.deadline is not None


def undo_progressed(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a heartbeat: it moves the deadline of the running undo."""
    effect = flow.effects[recorded.event.root]
    if effect.step.agent != recorded.agent or effect.attempt != recorded.event.attempt:
        return Void("this attempt of the undo is over")
    progress = StepProgress.FromString(recorded.event.data.value)
    if progress.handed_back:
        flow.effects[recorded.event.root] = replace(effect, starts=effect.starts.handed_back())
        return None
    due = recorded.time + _undo(effect).timeout
    if progress.waiting and effect.deadline is not None:
        due = max(effect.deadline, min(due, deadlines.wait_of_undo(flow, effect).until))
    flow.effects[recorded.event.root] = replace(
        effect,
        deadline=due,
        counted_from=recorded.time,
        starts=effect.starts.progressed(progress),
        queued=progress.waiting,
        begun=not progress.waiting,
    )
    return None


def undo_timed_out(flow: Flow, recorded: Recorded, timed_out: StepTimedOut) -> Void | None:
    """Applies a timeout of an undo."""
    effect = flow.effects.get(timed_out.undo_of)
    if (
        effect is None
        or effect.state is not EffectState.UNDOING
        or effect.attempt != timed_out.attempt
        or effect.deadline is None
        or from_timestamp(timed_out.deadline) < effect.deadline
        or recorded.time < effect.deadline
    ):
        return Void("the undo is over, or has time left")
    text = f"no outcome of the undo within {_undo(effect).timeout}"
    effect = replace(effect, starts=effect.starts.timed_out())
    flow.effects[timed_out.undo_of] = _after_failure(effect, recorded, text, retryable=True)
    return None


def retry_undo(flow: Flow, effect: Effect, recorded: Recorded) -> None:
    """Retries an undo on the order of a person."""
    flow.effects[effect.recorded.event_id] = replace(
        effect,
        state=EffectState.UNDOING,
        deadline=None,
        retry_at=recorded.time,
        budget=effect.attempt + _undo(effect).retry.max_attempts,
    )


def mark(flow: Flow, effect: Effect, state: EffectState) -> None:
    """Sets the state of an effect on the word of a person."""
    flow.effects[effect.recorded.event_id] = replace(effect, state=state, deadline=None, retry_at=None)
    if state is EffectState.UNDONE_BY_HAND:
        _mark_run_undone(flow, effect)


def _undo(effect: Effect) -> UndoSpec:
    if effect.step.undo is None:
        raise ValueError(f"step {effect.step.name} has no undo")
    return effect.step.undo


def _after_failure(effect: Effect, recorded: Recorded, text: str, *, retryable: bool) -> Effect:
    again = retryable and effect.attempt < effect.budget
    backoff = _undo(effect).retry.backoff(effect.attempt)
    return replace(
        effect,
        state=EffectState.UNDOING if again else EffectState.UNDO_FAILED,
        deadline=None,
        retry_at=recorded.time + backoff if again else None,
        last_error=text,
    )


def _mark_run_undone(flow: Flow, effect: Effect) -> None:
    """Marks a step run as undone once no effect of it stands."""
    key = (effect.step.name, effect.recorded.event.root)
    run = flow.runs.get(key)
    if run is None or run.state is not RunState.DONE or run.run != effect.recorded.event.run:
        return
    undone = (EffectState.UNDONE, EffectState.UNDONE_BY_HAND)
    if all(flow.effects[event_id].state in undone for event_id in run.outputs.values()):
        flow.runs[key] = replace(run, state=RunState.UNDONE)
