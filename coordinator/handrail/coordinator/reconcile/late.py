"""Messages that come after their flow was purged: what a person has to know about them. Pure."""

from __future__ import annotations

from handrail.mesh.bus import Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import decode
from handrail.mesh.wire.subjects import Kind
from handrail.v1.template_pb2 import EFFECT_NONE

_REPORTS = frozenset({Kind.EVENT, Kind.PROPOSAL, Kind.UNDONE, Kind.FAILURE})


def effect_of(delivery: Delivery, catalog: Catalog) -> str:
    """Says that a late message reports on a step with an effect, and what to do; empty if it does not."""
    try:
        late = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
    except HandrailError:
        return ""
    template = catalog.get(late.address.flow_type, late.event.template_version)
    step = template.steps.get(late.event.step) if template is not None else None
    if late.kind not in _REPORTS or step is None or step.effect == EFFECT_NONE:
        return ""
    return f"step {step.name} may have had an effect that the flow does not know: compare it with the archived flow"
