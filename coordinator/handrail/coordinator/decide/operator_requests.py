"""Judges what people ask of a flow: returns the decision to record, or raises the reason against it. Pure.

Each function raises HandrailError if the request is not allowed. If the flow already shows what is asked for, it
returns the stream sequence up to which it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from datetime import datetime

from handrail.coordinator.decide import messages
from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Effect, Flow, StepRun, Void
from handrail.mesh.fold import Versions, evolve, is_final, status
from handrail.mesh.fold.attempts import next_run
from handrail.mesh.fold.halts import may_halt
from handrail.mesh.fold.migration import why_not as why_not_migrate
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.v1.decision_pb2 import (
    Choice,
    FlowMigrated,
    FlowStatus,
    HaltMode,
    Resolved,
    StepReopened,
)
from handrail.v1.error_reason_pb2 import ErrorReason

Judge = Callable[[Flow, Caller], Entry | int]
"""One of these requests with its fields filled in: judges it on a flow, for a caller."""


def compensation(
    flow: Flow, caller: Caller, *, reason: str = "", to_step: str = "", etag: str = "", run_again: Iterable[str] = ()
) -> Entry:
    """Halts the flow and undoes its effects, all of them or back to a step.

    Raises WRONG_STATUS, STEP_NOT_FOUND, ETAG_MISMATCH, and CONSENT_NEEDED if steps would run a second time that
    `run_again` does not name.
    """
    _require_etag(flow, etag)
    floor = flow.sequence_of_step(to_step) if to_step else 0
    if to_step and not floor:
        raise refusal(ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f'it has no fact of a step "{to_step}"')
    consented = frozenset(run_again)
    entry = _halt(flow, HaltMode.HALT_MODE_COMPENSATE, reason, caller, to_step=to_step, run_again=consented)
    if to_step:
        _require_consent(flow, flow.effects_that_stay(floor), consented)
    return entry


def cancelling(flow: Flow, caller: Caller, *, reason: str = "", keep_effects: bool = False, etag: str = "") -> Entry:
    """Halts the flow so that it ends CANCELLED; raises WRONG_STATUS or ETAG_MISMATCH."""
    _require_etag(flow, etag)
    return _halt(flow, HaltMode.HALT_MODE_CANCEL, reason, caller, keep_effects=keep_effects)


def retrying(
    flow: Flow,
    caller: Caller,
    *,
    step: str,
    root: str = "",
    reason: str = "",
    etag: str = "",
    run_again: Iterable[str] = (),
) -> Entry:
    """Runs a step again; raises STEP_NOT_FOUND, WRONG_STATUS, ETAG_MISMATCH or CONSENT_NEEDED."""
    _require_etag(flow, etag)
    if flow.is_halted:
        raise refusal(ErrorReason.ERROR_REASON_WRONG_STATUS, flow, "it is halted; no forward step starts any more")
    run = _run(flow, step, root)
    outputs = (flow.effects.get(event_id) for event_id in run.outputs.values())
    _require_consent(flow, [effect for effect in outputs if effect is not None and effect.stays], frozenset(run_again))
    message = StepReopened(step=run.step.name, root=run.root, run=next_run(run), by=caller.subject, reason=reason)
    return messages.decision(
        flow, message, about=f"{run.step.name}:{run.root}", now=moment(flow), step=run.step.name, root=run.root
    )


def answer(
    flow: Flow,
    caller: Caller,
    *,
    choice: Choice.ValueType,
    escalation_id: str = "",
    reason: str = "",
    etag: str = "",
    run_again: Iterable[str] = (),
) -> Entry:
    """Answers an open escalation.

    Raises ESCALATION_NOT_FOUND, CHOICE_NOT_OFFERED, ETAG_MISMATCH or CONSENT_NEEDED.
    """
    _require_etag(flow, etag)
    wanted = escalation_id or (next(iter(flow.escalations)) if len(flow.escalations) == 1 else "")
    escalation = flow.escalations.get(wanted)
    if escalation is None:
        open_ones = ", ".join(flow.escalations) or "none"
        raise refusal(
            ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND,
            flow,
            f"it has no such open escalation; open ones: {open_ones}",
        )
    if choice not in escalation.choices:
        offered = ", ".join(Choice.Name(c).removeprefix("CHOICE_") for c in escalation.choices)
        raise refusal(ErrorReason.ERROR_REASON_CHOICE_NOT_OFFERED, flow, f"it offers {offered}")
    consented = frozenset(run_again)
    if choice == Choice.CHOICE_RESUME and flow.halt is not None and flow.halt.to_step:
        # The plan that the person saw does not contain what became known after the halt.
        _require_consent(flow, flow.effects_that_stay(flow.halt.floor), consented | flow.halt.run_again)
    message = Resolved(
        escalation_id=wanted, choice=choice, by=caller.subject, reason=reason, run_again=sorted(consented)
    )
    return messages.decision(flow, message, about=wanted, now=moment(flow))


def migrating(flow: Flow, caller: Caller, *, target: Template, reason: str = "", etag: str = "") -> Entry | int:
    """Moves the flow to another version; raises WRONG_STATUS with every reason against it, or ETAG_MISMATCH."""
    if flow.template.version == target.version:
        return flow.last_sequence
    _require_etag(flow, etag)
    reasons = why_not_migrate(flow, target)
    if reasons:
        text = f"it can't move to version {target.version}: {'; '.join(reasons)}"
        raise refusal(ErrorReason.ERROR_REASON_WRONG_STATUS, flow, text)
    message = FlowMigrated(
        from_version=flow.template.version,
        to_version=target.version,
        by=caller.subject,
        reason=reason,
    )
    return messages.decision(flow, message, about=str(target.version), now=moment(flow))


def moment(flow: Flow) -> datetime:
    """Returns the broker's time as the flow last saw it: this replica's own clock could be ahead of the broker's.

    Raises ValueError for a flow without a message.
    """
    if flow.last_time is None:
        raise ValueError("a flow without a message has no time")
    return flow.last_time


def why_void(flow: Flow, entry: Entry, versions: Versions) -> Void | None:
    """Returns why the flow would not count this decision, or None if it would."""
    recorded = Recorded(entry.address, entry.event, flow.last_sequence + 1, moment(flow))
    return evolve(flow, recorded, versions).void.get(recorded.sequence)


def _halt(
    flow: Flow,
    mode: HaltMode.ValueType,
    reason: str,
    caller: Caller,
    *,
    to_step: str = "",
    keep_effects: bool = False,
    run_again: Iterable[str] = (),
) -> Entry:
    if not may_halt(flow, mode) or (mode == HaltMode.HALT_MODE_CANCEL and is_final(flow)):
        standing = FlowStatus.Name(status(flow)).removeprefix("FLOW_STATUS_")
        raise refusal(ErrorReason.ERROR_REASON_WRONG_STATUS, flow, f"it is {standing}")
    return messages.halted(
        flow,
        mode,
        reason,
        moment(flow),
        by=caller.subject,
        to_step=to_step,
        keep_effects=keep_effects,
        run_again=run_again,
    )


def _require_consent(flow: Flow, effects: Iterable[Effect], consented: Set[str]) -> None:
    """Raises CONSENT_NEEDED unless `consented` names every step that would run again although its effects stand."""
    missing = sorted({effect.step.name for effect in effects} - consented)
    if missing:
        names = ", ".join(missing)
        raise HandrailError(
            ErrorReason.ERROR_REASON_CONSENT_NEEDED,
            f"flow {flow.flow_id}: the effects of {names} stand, and these steps would run a second time; "
            f"to consent, name them in run_again: {names}",
            steps=names,
            flow_id=flow.flow_id,
        )


def _require_etag(flow: Flow, etag: str) -> None:
    if etag and etag != flow.etag:
        raise refusal(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH, flow, f"it changed since etag {etag} was read; it is {flow.etag}"
        )


def _run(flow: Flow, step: str, root: str) -> StepRun:
    runs = [run for run in flow.runs.values() if run.step.name == step and root in ("", run.root)]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise refusal(ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f'it has no run of step "{step}"')
    roots = ", ".join(run.root for run in runs)
    raise refusal(
        ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f'step "{step}" has several runs; name one by its root: {roots}'
    )


def refusal(reason: ErrorReason.ValueType, flow: Flow, text: str) -> HandrailError:
    """Returns the error that says why this flow refuses a request."""
    return HandrailError(reason, f"flow {flow.flow_id}: {text}", flow_id=flow.flow_id, flow_type=flow.flow_type)
