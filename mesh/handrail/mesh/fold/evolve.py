"""`evolve`: takes one message, returns the next state of the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from google.protobuf.message import DecodeError

from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Void
from handrail.mesh.fold import (
    acts,
    approvals,
    attempts,
    compensation,
    deadlines,
    divergences,
    escalations,
    halts,
    migration,
    outcomes,
    requests,
    resolutions,
    resume,
    rules,
)
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import (
    ActRequested,
    ActWithdrawn,
    ApprovalGiven,
    ApprovalReassigned,
    ApprovalRefused,
    ApprovalRequested,
    CompensationStarted,
    Escalated,
    FlowClosed,
    FlowHalted,
    FlowMigrated,
    FlowResumed,
    Resolved,
    RuleTripped,
    StepQueued,
    StepReopened,
    StepTimedOut,
    TimeCredited,
)
from handrail.v1.error_reason_pb2 import ErrorReason

Rule = Callable[[Flow, Recorded], Void | None]

_OUTCOMES = frozenset({Kind.EVENT, Kind.PROPOSAL, Kind.UNDONE})
_BY_AGENTS = _OUTCOMES | {Kind.FAILURE, Kind.PROGRESS, Kind.DIVERGENCE}
_MIGRATED = FlowMigrated.DESCRIPTOR.full_name


_KINDS: dict[Kind, Rule] = {
    Kind.EVENT: outcomes.apply_event,
    Kind.PROPOSAL: outcomes.apply_proposal,
    Kind.RELEASED: outcomes.apply_released,
    Kind.FAILURE: attempts.apply_failure,
    Kind.PROGRESS: attempts.apply_progress,
    Kind.RETRY: attempts.apply_retry,
    Kind.UNDO: compensation.apply_undo,
    Kind.UNDONE: compensation.apply_undone,
    Kind.DIVERGENCE: divergences.apply_reported,
}

_DECISIONS: dict[str, Rule] = {
    ApprovalRequested.DESCRIPTOR.full_name: approvals.apply_requested,
    ApprovalGiven.DESCRIPTOR.full_name: approvals.apply_given,
    ApprovalRefused.DESCRIPTOR.full_name: approvals.apply_refused,
    ApprovalReassigned.DESCRIPTOR.full_name: approvals.apply_reassigned,
    StepTimedOut.DESCRIPTOR.full_name: attempts.apply_timed_out,
    StepQueued.DESCRIPTOR.full_name: deadlines.apply_queued,
    TimeCredited.DESCRIPTOR.full_name: deadlines.apply_credited,
    StepReopened.DESCRIPTOR.full_name: attempts.apply_reopened,
    CompensationStarted.DESCRIPTOR.full_name: compensation.apply_started,
    FlowHalted.DESCRIPTOR.full_name: halts.apply_halted,
    FlowResumed.DESCRIPTOR.full_name: resume.apply_resumed,
    RuleTripped.DESCRIPTOR.full_name: rules.apply_tripped,
    Escalated.DESCRIPTOR.full_name: escalations.apply_escalated,
    Resolved.DESCRIPTOR.full_name: resolutions.apply_resolved,
    FlowClosed.DESCRIPTOR.full_name: halts.apply_closed,
    ActRequested.DESCRIPTOR.full_name: acts.apply_requested,
    ActWithdrawn.DESCRIPTOR.full_name: acts.apply_withdrawn,
}


Versions = Mapping[int, Template]
"""The template versions that a history migrates its flow to, by number: all that a `FlowMigrated` in it names."""

NO_VERSIONS: Versions = MappingProxyType({})
"""For histories without migrations."""


def begin(template: Template) -> Flow:
    """A flow of this template before its first event."""
    return Flow(template)


def evolve(flow: Flow, recorded: Recorded, versions: Versions = NO_VERSIONS) -> Flow:
    """The flow after one more message. `recorded` must be the next one in stream order."""
    return advance(flow, (recorded,), versions)


def advance(flow: Flow, history: Iterable[Recorded], versions: Versions = NO_VERSIONS) -> Flow:
    """The flow after several more messages, which must be the next ones in stream order."""
    after = flow.copy()
    for recorded in history:
        _apply(after, recorded, versions)
    return after


def fold(template: Template, history: Iterable[Recorded], versions: Versions = NO_VERSIONS) -> Flow:
    """The flow after these messages, which must be in stream order."""
    flow = begin(template)
    for recorded in history:
        _apply(flow, recorded, versions)
    return flow


def pinned_version(history: Sequence[Recorded]) -> int:
    """The template version that a flow is pinned to: the one in its first event in the stream."""
    for recorded in history:
        if recorded.kind is Kind.EVENT and not recorded.event.step:
            return recorded.event.template_version
    return history[0].event.template_version


def _apply(flow: Flow, recorded: Recorded, versions: Versions) -> None:
    if recorded.sequence <= flow.last_sequence:
        raise ValueError(
            f"flow {recorded.event.flow_id}: sequence {recorded.sequence} comes after {flow.last_sequence}"
        )
    flow.flow_id = recorded.event.flow_id
    flow.last_sequence = recorded.sequence
    flow.last_time = recorded.time
    flow.last_span_id = recorded.event.span_id or flow.last_span_id
    flow.message_count += 1
    void = _judge(flow, recorded, versions)
    if recorded.event.HasField("request"):
        requests.apply(flow, recorded, void)
    if void is None:
        escalations.drop_settled(flow, recorded.time)
        return
    flow.void[recorded.sequence] = void
    if recorded.agent != COORDINATOR and (void.reason or recorded.kind in _OUTCOMES):
        divergences.add(flow, recorded, void.text, divergences.kind_of(void))
        if recorded.kind in _OUTCOMES:
            attempts.note_refused(flow, recorded, void)


def _judge(flow: Flow, recorded: Recorded, versions: Versions) -> Void | None:
    version = recorded.event.template_version
    if version != flow.template.version and version not in flow.versions:
        return Void(
            f"it claims version {version} of {flow.flow_type}, but the flow is pinned to {flow.template.version}",
            ErrorReason.ERROR_REASON_WRONG_VERSION,
        )
    try:
        if recorded.kind in _BY_AGENTS:
            flow.template.contracts.validate(flow.template.contracts.decode(recorded.event.data))
        if recorded.kind is Kind.DECISION:
            return _judge_decision(flow, recorded, versions)
        return _KINDS[recorded.kind](flow, recorded)
    except HandrailError as error:
        return Void(error.text, error.reason)
    except DecodeError as error:
        return Void(f"its data is not a {recorded.type}: {error}", ErrorReason.ERROR_REASON_MALFORMED)


def _judge_decision(flow: Flow, recorded: Recorded, versions: Versions) -> Void | None:
    if recorded.agent != COORDINATOR:
        return Void("only the coordinator records decisions", ErrorReason.ERROR_REASON_WRONG_AGENT)
    rule = _DECISIONS.get(recorded.type)
    if rule is None and recorded.type != _MIGRATED:
        return Void(f"{recorded.type} is not a known decision")
    if flow.first is None:
        return Void("the flow has not begun")
    void = acts.judge(flow, recorded)
    if void is None:
        void = rule(flow, recorded) if rule else migration.apply_migrated(flow, recorded, versions)
    if void is None:
        acts.settle(flow, recorded)
    return void
