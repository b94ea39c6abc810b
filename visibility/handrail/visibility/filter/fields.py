"""The fields of the filter language, and where the index has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from handrail.v1.decision_pb2 import FlowStatus
from handrail.visibility.filter.condition import HasRow, OfFlow, Test, equal

ATTRIBUTES = "attributes"
"""The field of what templates declare for search, as in `attributes.amount`."""

STATUSES = tuple(name.removeprefix("FLOW_STATUS_") for name in FlowStatus.keys()[1:])
"""The values of `status`, as the index has them."""

PENDING = equal("PENDING")
"""The test for the status of an approval that people have not decided yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a filter can refer to: the present, all attributes that templates declare, and all flow types."""

    now: datetime
    attributes: frozenset[str] = frozenset()
    flow_types: frozenset[str] = frozenset()


class Type(Enum):
    """The type of a field: what it takes, in the words of an error."""

    TEXT = "a text"
    STATUS = f"one of {', '.join(STATUSES)}"
    FLAG = "true or false"
    WHOLE = "a whole number up to 2147483647"
    PAST = "a time such as 2026-11-28T10:00:00Z, or how long ago, such as 30s, 5m, 2h or 7d"
    FUTURE = "a time such as 2026-11-28T10:00:00Z, or how far ahead, such as 30s, 5m, 2h or 7d"
    AGE = "a duration such as 30s, 5m, 2h or 7d, of a hundred years at most"
    KEY = "a business key"


@dataclass(frozen=True, slots=True)
class Place:
    """A column that holds a field: of the flow itself, or of rows of a table that pass `others`, too."""

    column: str
    table: str = ""
    others: tuple[tuple[str, Test], ...] = ()

    def where(self, test: Test) -> OfFlow | HasRow:
        """The condition that the column passes a test."""
        return HasRow(self.table, ((self.column, test), *self.others)) if self.table else OfFlow(self.column, test)


@dataclass(frozen=True, slots=True)
class Field:
    """A field's type and where it is; a field in several places holds if one of them does."""

    type: Type
    places: tuple[Place, ...] = ()


def _text(*places: Place) -> Field:
    return Field(Type.TEXT, places)


def _of_flow(type_: Type, column: str) -> Field:
    return Field(type_, (Place(column),))


_ASKS = (("status", PENDING),)

FIELDS: Mapping[str, Field] = {
    "flow_type": _of_flow(Type.TEXT, "flow_type"),
    "flow_id": _text(Place("flow_id", "flow")),
    "key": Field(Type.KEY),
    "version": _of_flow(Type.WHOLE, "version"),
    "status": _of_flow(Type.STATUS, "status"),
    "step": _text(Place("step", "owed"), Place("step", "approval", _ASKS), Place("step", "escalation")),
    "agent": _text(Place("agent", "owed"), Place("agent", "approval", _ASKS)),
    "requester": _of_flow(Type.TEXT, "requester"),
    "age": _of_flow(Type.AGE, "started"),
    "started": _of_flow(Type.PAST, "started"),
    "updated": _of_flow(Type.PAST, "updated"),
    "ended": _of_flow(Type.PAST, "ended"),
    "deadline": _of_flow(Type.FUTURE, "deadline"),
    "stuck": Field(Type.FLAG),
    "retrying": Field(Type.FLAG),
    "overdue": Field(Type.FLAG),
    "waiting": Field(Type.FLAG),
    "error_class": _text(Place("error_class", "failure")),
    "messages": _of_flow(Type.WHOLE, "messages"),
}
"""All fields by name, but attributes. `step` and `agent` are what the flow waits for now. An attribute with the name of
a field is reached as `attributes.NAME` only.
"""
