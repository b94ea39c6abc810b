"""The words of the filter language (docs/filters.md), for completion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.template_pb2 import FlowTemplate

_STATUSES = tuple(name.removeprefix("FLOW_STATUS_") for name in FlowStatus.keys()[1:])
_FLAGS = ("stuck", "waiting", "retrying", "overdue")
_SPANS = ("age", "started", "updated", "ended", "deadline")
_SPAN_VALUES = ("10m", "1h", "1d", "7d")
_TEXTS = ("flow_id", "key", "version", "requester", "error_class", "messages")

Words = Mapping[str, Mapping[str, object]]
"""Fields by name: `then` is what follows the name, `values` are the known ones."""


def words(templates: Iterable[FlowTemplate], agents: Iterable[str]) -> Words:
    """All fields, with the values that these templates and agents give them."""
    known = list(templates)
    steps = {step.name for each in known for step in each.steps}
    return {
        **{name: _field("") for name in _FLAGS},
        "status": _field(" = ", _STATUSES),
        "flow_type": _field(" = ", sorted({each.name for each in known})),
        "agent": _field(" = ", sorted(agents)),
        "step": _field(" = ", sorted(steps)),
        **{name: _field(" > " if name == "age" else " < ", _SPAN_VALUES) for name in _SPANS},
        **{name: _field(" = ") for name in _TEXTS},
        **{name: _field(" = ") for each in known for name in each.search},
    }


def _field(then: str, values: Sequence[str] = ()) -> Mapping[str, object]:
    return {"then": then, "values": list(values)}
