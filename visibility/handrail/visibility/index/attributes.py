"""Attributes: the values of the fields that a flow's template declares for search. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from handrail.mesh.contracts.field_path import field_at, value_at
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow


class Attribute(NamedTuple):
    """One value. A number has both forms."""

    name: str
    text: str
    number: float | None


def attributes(flow: Flow) -> list[Attribute]:
    """The flow's attributes: of each field, the value in the first fact that has one."""
    wanted = set(flow.template.search)
    found: list[Attribute] = []
    for recorded in flow.facts.values() if wanted else ():
        try:
            message = flow.template.contracts.decode(recorded.event.data)
        except HandrailError:
            continue  # an effect that came late is a fact without being checked
        for name in sorted(wanted):
            value = value_at(message, name) if field_at(type(message), name) is not None else None
            if value is not None:
                wanted.discard(name)
                found.append(_attribute(name, value))
        if not wanted:
            break
    return found


def _attribute(name: str, value: str | float) -> Attribute:
    if isinstance(value, str):
        return Attribute(name, value, None)
    number = float(value)
    return Attribute(name, str(value), number if math.isfinite(number) else None)
