"""API view of the stored versions that flows run on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.index.v1.index_service_pb2 import FlowCount
from handrail.mesh.flow import Flow, ProposalState
from handrail.mesh.fold.status import is_final
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.template_service_pb2 import UnboundedFlow, UnboundedReason, VersionUsage

EXAMPLES = 20
"""The most flows without a bound that one page names per version."""


def version_usages(
    templates: Iterable[Template], flows: Iterable[Flow], *, active: frozenset[tuple[str, int]], now: datetime
) -> list[VersionUsage]:
    """Shows each version with the flows that run on it, in the order of the templates."""
    running: defaultdict[tuple[str, int], list[Flow]] = defaultdict(list)
    for flow in flows:
        if not is_final(flow):
            running[flow.flow_type, flow.template.version].append(flow)
    return [_usage(each, running[key], key in active, now) for each in templates for key in [(each.name, each.version)]]


def counted_usages(
    templates: Iterable[Template], counts: Iterable[FlowCount], *, active: frozenset[tuple[str, int]]
) -> list[VersionUsage]:
    """Shows each version with the running flows that were counted, in the order of the templates."""
    running: defaultdict[tuple[str, int], list[FlowCount]] = defaultdict(list)
    for each in counts:
        running[each.flow_type, each.template_version].append(each)
    return [_counted(each, running[key], key in active) for each in templates for key in [(each.name, each.version)]]


def why_unbounded(flow: Flow, now: datetime) -> UnboundedReason.ValueType:
    """Explains why a running flow has no known end; UNSPECIFIED if its deadline bounds it."""
    if flow.escalations:
        return UnboundedReason.UNBOUNDED_REASON_ESCALATED
    if flow.is_halted:
        return UnboundedReason.UNBOUNDED_REASON_HALTED
    if flow.deadline <= now:
        return UnboundedReason.UNBOUNDED_REASON_OVERDUE
    if any(each.state is ProposalState.PENDING and each.expires_at is None for each in flow.proposals.values()):
        return UnboundedReason.UNBOUNDED_REASON_WAITING_APPROVAL
    return UnboundedReason.UNBOUNDED_REASON_UNSPECIFIED


def _counted(template: Template, counts: Sequence[FlowCount], active: bool) -> VersionUsage:
    unbounded = [each for each in counts if each.unbounded]
    examples = [(flow_id, each.unbounded) for each in unbounded for flow_id in each.newest_flow_ids]
    return VersionUsage(
        name=template.name,
        version=template.version,
        active=active,
        deadline=template.proto.deadline,
        running_flows=sum(each.flows for each in counts),
        oldest_start_time=min((each.oldest_start_time for each in counts), key=_nanoseconds, default=None),
        latest_deadline=max(
            (each.latest_deadline for each in counts if not each.unbounded), key=_nanoseconds, default=None
        ),
        unbounded_flows=sum(each.flows for each in unbounded),
        examples=[UnboundedFlow(flow_id=flow_id, reason=reason) for flow_id, reason in examples[:EXAMPLES]],
    )


def _nanoseconds(stamp: Timestamp) -> int:
    return stamp.ToNanoseconds()


def _usage(template: Template, flows: Sequence[Flow], active: bool, now: datetime) -> VersionUsage:
    reasons = {flow.flow_id: why_unbounded(flow, now) for flow in flows}
    unbounded = [flow for flow in flows if reasons[flow.flow_id]]
    bounded = [flow.deadline for flow in flows if not reasons[flow.flow_id]]
    return VersionUsage(
        name=template.name,
        version=template.version,
        active=active,
        deadline=template.proto.deadline,
        running_flows=len(flows),
        oldest_start_time=timestamp(min(flow.start_time for flow in flows)) if flows else None,
        latest_deadline=timestamp(max(bounded)) if bounded else None,
        unbounded_flows=len(unbounded),
        examples=[UnboundedFlow(flow_id=flow.flow_id, reason=reasons[flow.flow_id]) for flow in unbounded[:EXAMPLES]],
    )
