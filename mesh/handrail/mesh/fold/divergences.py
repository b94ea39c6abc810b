"""Divergences: actions of agents that the template does not provide for."""

from __future__ import annotations

from handrail.mesh.flow import Divergence, Flow, Void
from handrail.mesh.fold.status import is_final
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Divergence as DivergenceMessage
from handrail.v1.failure_pb2 import DivergenceKind

_REPORT = DivergenceMessage.DESCRIPTOR.full_name

_BY_REASON = {
    ErrorReason.ERROR_REASON_GATE_BYPASSED: DivergenceKind.DIVERGENCE_KIND_GATE_BYPASSED,
    ErrorReason.ERROR_REASON_WRONG_VERSION: DivergenceKind.DIVERGENCE_KIND_WRONG_VERSION,
    ErrorReason.ERROR_REASON_WRONG_AGENT: DivergenceKind.DIVERGENCE_KIND_WRONG_AGENT,
    ErrorReason.ERROR_REASON_DIFFERENT_ANSWER: DivergenceKind.DIVERGENCE_KIND_DIFFERENT_ANSWER,
}


def kind_of(void: Void) -> DivergenceKind.ValueType:
    """The kind of divergence that a void message is."""
    return void.divergence or _BY_REASON.get(void.reason, DivergenceKind.DIVERGENCE_KIND_BROKEN_CONTRACT)


def add(
    flow: Flow,
    recorded: Recorded,
    text: str,
    kind: DivergenceKind.ValueType,
    *,
    message_type: str = "",
    asks: bool = True,
) -> None:
    """Adds a divergence. It asks for a person if `asks`, if the flow can be held, and if the template says so."""
    flow.divergences = (
        *flow.divergences,
        Divergence(
            sequence=recorded.sequence,
            agent=recorded.agent,
            type=message_type or recorded.type,
            text=text,
            kind=kind,
            version=flow.template.version,
            time=recorded.time,
            asks=asks and flow.template.asks_on_divergence and _can_be_held(flow),
        ),
    )


def apply_reported(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the report of an agent about a divergence that the stream can't show."""
    if recorded.type != _REPORT:
        return Void(
            f"{recorded.type} is not a divergence report",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
            DivergenceKind.DIVERGENCE_KIND_WRONG_TYPE,
        )
    report = DivergenceMessage.FromString(recorded.event.data.value)
    text = f"{report.refused_type} was not stored as {report.event_id}: it holds {report.stored_type}"
    add(flow, recorded, text, report.kind, message_type=report.refused_type)
    return None


def _can_be_held(flow: Flow) -> bool:
    return flow.first is not None and flow.goes_on and not is_final(flow)
