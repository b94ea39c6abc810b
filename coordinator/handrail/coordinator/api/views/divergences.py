"""API views of divergences: each one, or counts."""

from __future__ import annotations

from collections.abc import Iterable

from handrail.mesh.flow import Divergence
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import flow_service_pb2 as pb


def divergence_view(seen: Divergence) -> pb.FlowDivergence:
    """Shows one divergence."""
    return pb.FlowDivergence(
        sequence=seen.sequence,
        agent=seen.agent,
        type=seen.type,
        text=seen.text,
        kind=seen.kind,
        template_version=seen.version,
        time=timestamp(seen.time),
    )


def divergence_counts(divergences: Iterable[pb.ListedDivergence]) -> list[pb.DivergenceCount]:
    """Counts equal divergences, the most frequent first; expects them newest first."""
    counts: dict[tuple[str, int, str, int], pb.DivergenceCount] = {}
    for seen in divergences:
        each = seen.divergence
        key = (seen.flow_type, each.template_version, each.agent, each.kind)
        if key not in counts:
            counts[key] = pb.DivergenceCount(
                flow_type=seen.flow_type,
                template_version=each.template_version,
                agent=each.agent,
                kind=each.kind,
                example=seen,
            )
        counts[key].count += 1
    return sorted(counts.values(), key=lambda count: -count.count)
