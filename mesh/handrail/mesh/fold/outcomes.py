"""Outcomes of step runs: events, proposals and released proposals."""

from __future__ import annotations

from handrail.mesh.flow import Effect, EffectState, Flow, ProposalState, RunState, StepRun, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import approvals, divergences
from handrail.mesh.fold.triggers import add_fact
from handrail.mesh.template import STEP_COMPLETED, StepSpec, Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind
from handrail.v1.template_pb2 import EFFECT_NONE, EFFECT_UNDOABLE

AGENT_IDENTITY = "agent/"
"""Prefix of the requester of a flow that an agent started: no name of a person begins with it."""

_LATE = DivergenceKind.DIVERGENCE_KIND_LATE_OUTCOME
_NOT_TRIGGERED = DivergenceKind.DIVERGENCE_KIND_NOT_TRIGGERED
_REOPENED_BY_AN_EFFECT = (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED)


def apply_event(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies an event: the first event of the flow, or the outcome of a step run."""
    if flow.template.gates_on(recorded.type):
        return Void(
            f"{recorded.type} is gated: it counts only as a released proposal",
            ErrorReason.ERROR_REASON_GATE_BYPASSED,
        )
    if not recorded.event.step:
        return _begin(flow, recorded)
    run = _run_of(flow, recorded)
    if isinstance(run, Void):
        gone = _gone(flow, recorded)
        return run if gone is None else _add_orphan(flow, gone, recorded)
    if _came_too_late(run, recorded):
        return _add_orphan(flow, run.step, recorded)
    _count(flow, run, recorded)
    add_fact(flow, recorded)
    return None


def apply_proposal(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a proposal. Its gates are evaluated here, so all readers see the same result."""
    if not flow.template.gates_on(recorded.type):
        return Void(
            f"{recorded.type} is not gated in this version: publish it as an event",
            divergence=DivergenceKind.DIVERGENCE_KIND_NOT_GATED,
        )
    run = _run_of(flow, recorded)
    if isinstance(run, Void):
        gone = _gone(flow, recorded)
        return run if gone is None else _add_orphan(flow, gone, recorded)
    if _came_too_late(run, recorded):
        return _add_orphan(flow, run.step, recorded)
    _count(flow, run, recorded)
    proposal = approvals.evaluate(flow, recorded)
    if not flow.goes_on:
        proposal = replace(proposal, state=ProposalState.WITHDRAWN)
    flow.proposals[recorded.event_id] = proposal
    return None


def apply_released(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a release: the proposal becomes a fact. Void unless all gates passed and the bytes are the same."""
    proposal = flow.proposals.get(recorded.event_id)
    if proposal is None:
        return Void("nothing was proposed under this id", ErrorReason.ERROR_REASON_GATE_BYPASSED)
    if proposal.recorded.agent != recorded.agent or proposal.recorded.event != recorded.event:
        return Void("it differs from the proposal", ErrorReason.ERROR_REASON_GATE_BYPASSED)
    if flow.is_halted:
        return Void("the flow was halted before the release")
    if not approvals.may_be_released(proposal):
        return Void(f"its proposal is {proposal.state.name.lower()}, not passed")
    flow.proposals[recorded.event_id] = replace(proposal, state=ProposalState.RELEASED)
    add_fact(flow, recorded)
    return None


def why_not_first(template: Template, recorded: Recorded) -> Void | None:
    """Why this message can't be the first event of a flow of this template; None if it can."""
    if recorded.type not in template.starts_with:
        return Void(
            f"no {template.name} starts with {recorded.type}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
            DivergenceKind.DIVERGENCE_KIND_WRONG_TYPE,
        )
    if recorded.agent != COORDINATOR and recorded.agent not in template.started_by:
        return Void(f"agent {recorded.agent} may not start a {template.name}", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if recorded.event_id != ids.start_id(recorded.event.flow_id):
        return Void("its id is not that of a first event", ErrorReason.ERROR_REASON_WRONG_EVENT_ID)
    return None


def _begin(flow: Flow, recorded: Recorded) -> Void | None:
    event = recorded.event
    if flow.first is not None:
        return Void("the flow has already begun", divergence=DivergenceKind.DIVERGENCE_KIND_SECOND_START)
    refused = why_not_first(flow.template, recorded)
    if refused is not None:
        return refused
    flow.first = recorded
    flow.requester = event.requester if recorded.agent == COORDINATOR else AGENT_IDENTITY + recorded.agent
    add_fact(flow, recorded)
    return None


def _run_of(flow: Flow, recorded: Recorded) -> StepRun | Void:
    """The step run of an outcome, or why the outcome is void."""
    event = recorded.event
    step = flow.template.steps.get(event.step)
    if step is None:
        return Void(
            f'{flow.flow_type} has no step "{event.step}"',
            ErrorReason.ERROR_REASON_WRONG_AGENT,
            DivergenceKind.DIVERGENCE_KIND_UNKNOWN_STEP,
        )
    if step.agent != recorded.agent:
        return Void(
            f"step {step.name} belongs to agent {step.agent}, not {recorded.agent}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
        )
    if recorded.type not in step.emits and recorded.type != STEP_COMPLETED:
        return Void(
            f"step {step.name} does not emit {recorded.type}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
            DivergenceKind.DIVERGENCE_KIND_WRONG_TYPE,
        )
    run = flow.runs.get((step.name, event.root))
    if run is None:
        return Void(f"nothing triggered step {step.name} with root {event.root}", divergence=_NOT_TRIGGERED)
    if event.run > run.run:
        return Void(f"step {step.name} is in run {run.run}, this is for run {event.run}", divergence=_NOT_TRIGGERED)
    return _misfit(flow, run, recorded) or run


def _gone(flow: Flow, recorded: Recorded) -> StepSpec | None:
    """The step of an earlier version of the flow, if this answer was in progress during the migration; else None."""
    step = flow.former_steps.get(recorded.event.step)
    fits = step is not None and step.agent == recorded.agent and recorded.type in step.emits
    return step if fits and recorded.event_id not in flow.effects else None


def _misfit(flow: Flow, run: StepRun, recorded: Recorded) -> Void | None:
    """Why an outcome does not fit the earlier outcomes of its run; None if it does."""
    event = recorded.event
    if recorded.event_id in run.outputs.values() or recorded.event_id in flow.effects:
        return Void(
            f"step {run.step.name} has already given output {event.output_index}: only the first answer counts",
            ErrorReason.ERROR_REASON_DIFFERENT_ANSWER,
        )
    total = _total(recorded)
    if not run.step.allows(total):
        return Void(
            f"step {run.step.name} answers with {total} messages; at most {run.step.max_outputs} are allowed",
            ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
        )
    if event.output_index >= total or (event.run == run.run and run.output_total not in (0, total)):
        return Void(
            f"output {event.output_index} of {total} does not fit the {run.output_total or total} announced",
            divergence=DivergenceKind.DIVERGENCE_KIND_WRONG_OUTPUT,
        )
    return None


def _came_too_late(run: StepRun, recorded: Recorded) -> bool:
    return run.state is RunState.SUPERSEDED or recorded.event.run < run.run


def _count(flow: Flow, run: StepRun, recorded: Recorded) -> None:
    total = _total(recorded)
    outputs = {**run.outputs, recorded.event.output_index: recorded.event_id}
    done = len(outputs) == total
    flow.runs[run.key] = replace(
        run,
        outputs=outputs,
        output_total=total,
        state=RunState.DONE if done else run.state,
        ended=recorded.time,
        unknown=frozenset() if done else run.unknown,
    )
    _add_effect(flow, run.step, recorded, orphan=False)


def _add_orphan(flow: Flow, step: StepSpec, recorded: Recorded) -> Void | None:
    """Adds an outcome of a superseded run, or of a step that the flow's version lacks. It is not a fact, but its effect
    happened and must be undone."""
    text = "its run had been superseded"
    if step.name not in flow.template.steps:
        text = f"version {flow.template.version} has no step {step.name}"
    if step.effect == EFFECT_NONE:
        return Void(text, divergence=_LATE)
    _add_effect(flow, step, recorded, orphan=True)
    divergences.add(flow, recorded, f"{text}; its effect is handled separately", _LATE, asks=False)
    return None


def _add_effect(flow: Flow, step: StepSpec, recorded: Recorded, *, orphan: bool) -> None:
    if step.effect == EFFECT_NONE:
        return
    undoable = step.effect == EFFECT_UNDOABLE and step.undo is not None
    flow.effects[recorded.event_id] = Effect(
        recorded,
        step,
        EffectState.DONE if undoable else EffectState.IRREVERSIBLE,
        orphan=orphan and undoable,
        budget=step.undo.retry.max_attempts if step.undo else 1,
    )
    if undoable and flow.is_undoing and flow.closed in _REOPENED_BY_AN_EFFECT:
        flow.closed = FlowStatus.FLOW_STATUS_UNSPECIFIED
        flow.closed_reason = ""


def _total(recorded: Recorded) -> int:
    return recorded.event.output_total or 1
