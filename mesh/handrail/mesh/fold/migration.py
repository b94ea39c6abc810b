"""Migration: a running flow moves to another version of its template.

Past decisions stay: facts, ended runs, given approvals, tripped rules. After the migration the new version governs
the flow. Undecided proposals are evaluated again, by the gates of the new version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.message import DecodeError

from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Effect, Flow, Migration, ProposalState, StepRun, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import approvals, rules, triggers
from handrail.mesh.fold.status import is_final
from handrail.mesh.template import APPROVAL_REFUSED, StepSpec, Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import FlowMigrated
from handrail.v1.error_reason_pb2 import ErrorReason

_MIGRATED = FlowMigrated.DESCRIPTOR.full_name
_EVALUATED_ANEW = frozenset({ProposalState.EVALUATED, ProposalState.PENDING, ProposalState.EXPIRED})


def migration_of(recorded: Recorded) -> FlowMigrated | None:
    """The migration that a message records, or None. Only messages of the coordinator are decisions."""
    if recorded.type != _MIGRATED or recorded.kind is not Kind.DECISION or recorded.agent != COORDINATOR:
        return None
    try:
        return FlowMigrated.FromString(recorded.event.data.value)
    except DecodeError:
        return None  # the fold will mark it as void


def apply_migrated(flow: Flow, recorded: Recorded, versions: Mapping[int, Template]) -> Void | None:
    """Applies a migration; void if the flow can't migrate, or if `versions` lacks the target version."""
    migrated = FlowMigrated.FromString(recorded.event.data.value)
    if migrated.from_version != flow.template.version:
        return Void(f"the flow is pinned to version {flow.template.version}", ErrorReason.ERROR_REASON_WRONG_VERSION)
    if not migrated.by:
        return Void("it does not name who migrated the flow", ErrorReason.ERROR_REASON_MISSING_ROLE)
    target = versions.get(migrated.to_version)
    if target is None:
        return Void(f"there is no version {migrated.to_version} to move to", ErrorReason.ERROR_REASON_WRONG_VERSION)
    reasons = why_not(flow, target)
    if reasons:
        return Void("; ".join(reasons), ErrorReason.ERROR_REASON_WRONG_STATUS)
    flow.migrations = (
        *flow.migrations,
        Migration(
            migrated.from_version,
            migrated.to_version,
            migrated.by,
            migrated.reason,
            recorded.sequence,
            recorded.time,
        ),
    )
    _move(flow, target)
    return None


def why_not(flow: Flow, target: Template) -> list[str]:
    """Why a flow can't migrate to this version in its current state, as texts for people; empty if it can."""
    if flow.first is None or is_final(flow):
        return ["it is over"]
    if target.version == flow.template.version:
        return [f"it is already pinned to version {target.version}"]
    if not flow.goes_on:
        return ["it is being undone, or brought to its end"]
    if flow.pending_resolution is not None or flow.diverged is not None or rules.outstanding(flow) is not None:
        return ["a decision on it is in progress: try again shortly"]
    return [*_of_runs(flow, target), *_of_effects(flow, target), *_of_facts(flow, target), *_of_proposals(flow, target)]


def _of_runs(flow: Flow, target: Template) -> Iterator[str]:
    """The target must have all steps in progress, with the same meaning."""
    for run in flow.runs.values():
        if run.is_open:
            yield from _of_run(flow, run, target)


def _of_run(flow: Flow, run: StepRun, target: Template) -> Iterator[str]:
    step, about = target.steps.get(run.step.name), f"step {run.step.name} is in progress"
    if step is None:
        yield f"{about}, and version {target.version} has no such step"
        return
    if step.agent != run.step.agent:
        yield f"{about}, and belongs to agent {step.agent} in version {target.version}"
    if step.effect != run.step.effect:
        effect = pb.Effect.Name(step.effect).removeprefix("EFFECT_")
        yield f"{about}, and its effect is {effect} in version {target.version}"
    if run.trigger.type not in step.waits_for:
        yield f"{about} after {run.trigger.type}, which version {target.version} does not wait for"
    if not step.allows(run.output_total):
        allowed = f"{step.max_outputs} are allowed in version {target.version}"
        yield f"{about} and answers with {run.output_total} messages; {allowed}"
    for answer in sorted(run.step.emits):
        if answer not in step.emits:
            yield f"{about} and may answer with {answer}, which version {target.version} does not allow"
        elif bool(flow.template.gates_on(answer)) != bool(target.gates_on(answer)):
            yield f"{about}, and its answer {answer} is gated in only one of the two versions"


def _of_effects(flow: Flow, target: Template) -> Iterator[str]:
    """The target must be able to undo all effects in the same way."""
    for effect in flow.effects.values():
        step = target.steps.get(effect.step.name)
        if effect.stands and not _undoes(step, effect):
            yield f"version {target.version} can't undo {effect.recorded.type} of step {effect.step.name}"


def _undoes(step: StepSpec | None, effect: Effect) -> bool:
    undo = effect.step.undo
    if step is None or step.agent != effect.step.agent or step.effect != pb.EFFECT_UNDOABLE:
        return False
    return step.undo is not None and (undo is None or undo.emits <= step.undo.emits)


def _of_facts(flow: Flow, target: Template) -> Iterator[str]:
    """No existing fact may be one that a step of the target still waits for, or break a contract of the target."""
    first = flow.first
    if first is not None and first.type not in target.starts_with:
        yield f"version {target.version} does not start with {first.type}"
    for recorded in flow.facts.values():
        for step in target.triggered_by(recorded.type):
            if (step.name, recorded.event_id) not in flow.runs:
                yield f"{recorded.type} has come: step {step.name} of version {target.version} would not run after it"
        if target.contracts.knows(recorded.type):
            try:
                target.contracts.validate(target.contracts.decode(recorded.event.data))
            except HandrailError as error:
                yield f"{recorded.type} has come, and breaks its contract in version {target.version}: {error.text}"
    for step in target.steps.values():
        if step.joins and step.name not in flow.joined and triggers.inputs_of_join(flow, step):
            yield f"all inputs of join {step.name} of version {target.version} have come: it would not run"


def _of_proposals(flow: Flow, target: Template) -> Iterator[str]:
    for proposal in flow.proposals.values():
        recorded = proposal.recorded
        if proposal.state in _EVALUATED_ANEW and not target.contracts.knows(recorded.type):
            yield f"{recorded.type} waits for approval, and version {target.version} does not know it"
        if proposal.state is ProposalState.REJECTED and proposal.refused_by is not None:
            for step in target.triggered_by(APPROVAL_REFUSED):
                if (step.name, proposal.refused_by.event_id) not in flow.runs:
                    yield f"{recorded.type} was refused, and step {step.name} of version {target.version} would not run"


def _move(flow: Flow, target: Template) -> None:
    gone = {name: step for name, step in flow.template.steps.items() if name not in target.steps}
    flow.former_steps = {**flow.former_steps, **gone}
    flow.template = target
    for run in list(flow.runs.values()):
        flow.runs[run.key] = replace(run, step=target.steps.get(run.step.name, run.step))
    for event_id, effect in list(flow.effects.items()):
        flow.effects[event_id] = replace(effect, step=target.steps.get(effect.step.name, effect.step))
    for event_id, proposal in list(flow.proposals.items()):
        if proposal.state in _EVALUATED_ANEW:
            flow.proposals[event_id] = approvals.evaluate(flow, proposal.recorded)
