"""Outcomes of step runs: events, proposals and released proposals; and what they trigger."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import Message

from handrail.mesh import ids
from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import HandrailError, PolicyError
from handrail.mesh.flow import Effect, EffectState, Flow, ProposalState, RunState, StepRun, Void
from handrail.mesh.fold import approvals, rules
from handrail.mesh.subjects import COORDINATOR
from handrail.mesh.template import EffectKind, StepSpec
from handrail.v1.decision_pb2 import FlowStatus, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted

STEP_COMPLETED: str = StepCompleted.DESCRIPTOR.full_name

AGENT_IDENTITY = "agent/"
"""Prefix of the requester of a flow that an agent began: no person has such a name."""


def apply_event(flow: Flow, recorded: Recorded) -> Void | None:
    """A fact: the first event of the flow, or the outcome of a step run."""
    if flow.template.gates_on(recorded.type):
        return Void(
            f"{recorded.type} is gated: it counts only as a released proposal",
            ErrorReason.ERROR_REASON_GATE_BYPASSED,
        )
    message = _decode(flow, recorded)
    if isinstance(message, Void):
        return message
    if not recorded.event.step:
        return _begin(flow, recorded)
    run = _accept(flow, recorded)
    if isinstance(run, Void):
        return run
    if run.state is RunState.SUPERSEDED:
        return Void("it came for a run that was superseded; its effect will be undone")
    add_fact(flow, recorded)
    return None


def apply_proposal(flow: Flow, recorded: Recorded) -> Void | None:
    """A fact-to-be: its gates are evaluated here, so that every reader sees the same."""
    if not flow.template.gates_on(recorded.type):
        return Void(f"{recorded.type} passes no gate in this version: it is to be an event")
    message = _decode(flow, recorded)
    if isinstance(message, Void):
        return message
    run = _accept(flow, recorded)
    if isinstance(run, Void):
        return run
    if run.state is RunState.SUPERSEDED:
        return Void("it came for a run that was superseded; its effect will be undone")
    proposal = approvals.evaluate(flow, recorded, message)
    if flow.is_halted and flow.halt is not None and flow.halt.mode != HaltMode.HALT_MODE_HOLD:
        proposal = replace(proposal, state=ProposalState.WITHDRAWN)
    flow.proposals[recorded.event_id] = proposal
    return None


def apply_released(flow: Flow, recorded: Recorded) -> Void | None:
    """A proposal as a fact: only after all its gates passed, with the very bytes that were proposed."""
    proposal = flow.proposals.get(recorded.event_id)
    if proposal is None:
        return Void("nothing was proposed under this id", ErrorReason.ERROR_REASON_GATE_BYPASSED)
    if proposal.recorded.agent != recorded.agent or proposal.recorded.event != recorded.event:
        return Void("it is not what was proposed", ErrorReason.ERROR_REASON_GATE_BYPASSED)
    if flow.is_halted:
        return Void("the flow was halted before the release")
    if not approvals.may_be_released(proposal):
        return Void(f"its proposal is {proposal.state.name.lower()}, not passed")
    flow.proposals[recorded.event_id] = replace(proposal, state=ProposalState.RELEASED)
    add_fact(flow, recorded)
    return None


def add_fact(flow: Flow, recorded: Recorded) -> None:
    """Let a fact count: it triggers steps, completes joins, and trips rules."""
    flow.facts[recorded.event_id] = recorded
    flow.facts_by_type[recorded.type] = (*flow.facts_by_type.get(recorded.type, ()), recorded)
    trigger(flow, recorded)
    for step in flow.template.joins_on(recorded.type):
        _join(flow, step, recorded)
    rules.evaluate(flow, recorded)


def trigger(flow: Flow, recorded: Recorded) -> None:
    """Begin a run of every step that waits for this fact or decision."""
    for step in flow.template.triggered_by(recorded.type):
        _begin_run(flow, step, recorded.event_id, recorded, (recorded.event_id,))


def _begin(flow: Flow, recorded: Recorded) -> Void | None:
    event, template = recorded.event, flow.template
    if flow.first is not None:
        return Void("the flow has begun already")
    if recorded.type not in template.starts_with:
        return Void(f"no {flow.flow_type} starts with {recorded.type}", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if recorded.agent != COORDINATOR and recorded.agent not in template.started_by:
        return Void(f"agent {recorded.agent} may not start a {flow.flow_type}", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if event.event_id != ids.start_id(event.flow_id):
        return Void("it has not the id of a first event", ErrorReason.ERROR_REASON_WRONG_EVENT_ID)
    flow.first = recorded
    flow.requester = event.requester if recorded.agent == COORDINATOR else AGENT_IDENTITY + recorded.agent
    add_fact(flow, recorded)
    return None


def _decode(flow: Flow, recorded: Recorded) -> Message | Void:
    contracts = flow.template.contracts
    try:
        message = contracts.decode(recorded.event.data)
        contracts.validate(message)
    except HandrailError as error:
        return Void(error.text, error.reason)
    return message


def _accept(flow: Flow, recorded: Recorded) -> StepRun | Void:
    """Check an outcome against its step run and count it there."""
    event = recorded.event
    step = flow.template.steps.get(event.step)
    if step is None:
        return Void(f"{flow.flow_type} has no step «{event.step}»", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if step.agent != recorded.agent:
        return Void(
            f"step {step.name} belongs to agent {step.agent}, not {recorded.agent}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
        )
    if recorded.type not in step.emits and recorded.type != STEP_COMPLETED:
        return Void(f"step {step.name} does not emit {recorded.type}", ErrorReason.ERROR_REASON_WRONG_AGENT)
    run = flow.runs.get((step.name, event.root))
    if run is None:
        return Void(f"nothing triggered step {step.name} with root {event.root}")
    if run.run != event.run:
        return Void(f"step {step.name} is in run {run.run}, this is for run {event.run}")
    total = event.output_total or 1
    if event.output_index >= total or (run.output_total and run.output_total != total):
        return Void(f"output {event.output_index} of {total} does not fit the {run.output_total} announced")
    return _count(flow, run, recorded, total)


def _count(flow: Flow, run: StepRun, recorded: Recorded, total: int) -> StepRun:
    superseded = run.state in (RunState.SUPERSEDED, RunState.UNDONE)
    outputs = {**run.outputs, recorded.event.output_index: recorded.event_id}
    state = run.state
    if superseded:
        state = RunState.SUPERSEDED
    elif len(outputs) == total:
        state = RunState.DONE
    after = replace(
        run,
        outputs=outputs,
        output_total=total,
        state=state,
        ended=recorded.time,
        outcome_unknown=run.outcome_unknown and state is not RunState.DONE,
    )
    flow.runs[run.key] = after
    if state is RunState.DONE:
        _close_matters_of(flow, run)
    if run.step.effect is not EffectKind.NONE:
        _add_effect(flow, after, recorded, orphan=superseded)
    return after


def _add_effect(flow: Flow, run: StepRun, recorded: Recorded, *, orphan: bool) -> None:
    undoable = run.step.effect is EffectKind.UNDOABLE
    flow.effects[recorded.event_id] = Effect(
        recorded,
        run.step,
        EffectState.DONE if undoable else EffectState.IRREVERSIBLE,
        orphan=orphan and undoable,
        budget=run.step.undo.retry.max_attempts if run.step.undo else 1,
    )
    undone = (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED)
    if undoable and flow.closed in undone and flow.is_undoing:
        flow.closed = FlowStatus.FLOW_STATUS_UNSPECIFIED
        flow.closed_reason = ""


def _close_matters_of(flow: Flow, run: StepRun) -> None:
    about = f"{run.root}:"
    for escalation in list(flow.escalations.values()):
        if escalation.step == run.step.name and escalation.subject_id.startswith(about):
            del flow.escalations[escalation.escalation_id]


def _begin_run(flow: Flow, step: StepSpec, root: str, recorded: Recorded, inputs: tuple[str, ...]) -> None:
    if (step.name, root) in flow.runs:
        return
    flow.runs[step.name, root] = StepRun(
        step=step,
        root=root,
        trigger=recorded,
        inputs=inputs,
        since=recorded.time,
        deadline=recorded.time + step.timeout,
        budget=step.retry.max_attempts,
    )


def _join(flow: Flow, step: StepSpec, last: Recorded) -> None:
    """Begin the run of a join once its last input is there; the first inputs of each type count."""
    if step.name in flow.joined:
        return
    chosen: list[Recorded] = []
    for wanted in step.joins:
        there = flow.facts_by_type.get(wanted.type, ())
        try:
            count = wanted.count.evaluate(rules.latest(flow))
        except PolicyError:
            return
        if count < 1 or len(there) < count:
            return
        chosen += there[:count]
    chosen.sort(key=lambda recorded: recorded.sequence)
    event_ids = tuple(recorded.event_id for recorded in chosen)
    flow.joined |= {step.name}
    # The event that completed the condition can be one that the count was waiting for, not an input itself.
    trigger_by = chosen[-1] if chosen[-1].sequence == last.sequence else last
    _begin_run(flow, step, ids.join_root(event_ids), trigger_by, event_ids)
