"""Recorded flows for the inference of templates, and the parts of a template that they reveal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from handrail.analysis.infer import Traffic
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.wire.envelope import Recorded
from handrail.testing import FlowView
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.simulation import Simulation


def traffic_of(*sources: FlowView | Simulation) -> list[Traffic]:
    """The recorded flows, as read from the stream."""
    return [_traffic(source.history, source.flow) for source in sources]


def _traffic(history: Iterable[Recorded], flow: Flow) -> Traffic:
    counting = [recorded for recorded in history if recorded.sequence not in flow.void]
    left_out = [recorded for recorded in history if recorded.sequence in flow.void]
    return Traffic(counting, status(flow), left_out)


def structure(template: FlowTemplate) -> dict[str, Any]:
    """The structure of a template: beginnings, ends, steps with their triggers and answers, gates."""
    return {
        "starts_with": set(template.starts_with),
        "started_by": set(template.started_by),
        "completes_with": set(template.completes_with),
        "steps": {
            step.name: {
                "agent": step.agent,
                "after": set(step.after),
                "after_all": {join.type: join.count or "1" for join in step.after_all},
                "emits": set(step.emits),
            }
            for step in template.steps
        },
        "gates": {gate.on for gate in template.gates},
    }
