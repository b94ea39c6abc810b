"""The graph of a flow's template, with what ran in this flow. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from handrail.analysis.chart.model import Kind, chart_of
from handrail.analysis.chart.svg import drawing
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.event_pb2 import RecordedEvent
from handrail.v1.template_pb2 import FlowTemplate

_RUNS: Mapping[int, str] = {
    pb.STEP_RUN_STATUS_OWED: "waits",
    pb.STEP_RUN_STATUS_BACKOFF: "waits",
    pb.STEP_RUN_STATUS_FAILED: "failed",
    pb.STEP_RUN_STATUS_UNDONE: "undone",
}
_GATES: Mapping[int, str] = {pb.APPROVAL_STATUS_PENDING: "waits", pb.APPROVAL_STATUS_REJECTED: "failed"}


def graph(template: FlowTemplate) -> Markup:
    """The graph of a template as an SVG element, which escapes its own text."""
    return Markup(drawing(chart_of(template)))


def graph_of_flow(template: FlowTemplate, flow: pb.Flow, events: Sequence[RecordedEvent]) -> Markup:
    """The same, with what this flow did not reach in the background, and what waits or failed marked."""
    chart = chart_of(template)
    reached = {"start": "ran"}
    reached.update({f"event {each.type}": "ran" for each in events if not each.void_reason})
    for run in flow.step_runs:
        reached[f"step {run.step}"] = _RUNS.get(run.status, "ran")
        reached[f"join {run.step}"] = "ran"
    for approval in flow.approvals:
        reached.update({f"gate {gate.gate}": _GATES.get(approval.status, "ran") for gate in approval.gates})
    if flow.status == FlowStatus.FLOW_STATUS_COMPLETED:
        reached["completed"] = "ran"
    looks = {node.key: reached.get(node.key, "unreached") for node in chart.nodes}
    # A gate that let a message pass unasked leaves no trace of its own.
    for edge in chart.edges:
        kinds = {node.key: node.kind for node in chart.nodes}
        if kinds[edge.source] is Kind.GATE and looks[edge.source] == "unreached":
            looks[edge.source] = "ran" if looks[edge.target] != "unreached" and not edge.aside else "unreached"
    return Markup(drawing(chart, looks))
