"""Flows of a list, as the API shows them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Row, select

from handrail.index.v1.index_service_pb2 import FlowRow
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import Flow
from handrail.visibility.filter import Order, Place, parse_order
from handrail.visibility.index import schema
from handrail.visibility.serve.listing import Found, Kind
from handrail.visibility.serve.page_token import Key

_FIRST = "first_sequence"


@dataclass(frozen=True, slots=True)
class FlowOrder:
    """An order of flows: by a time, and flows of the same time by their place in the stream."""

    order: Order

    @property
    def kinds(self) -> tuple[type[Key], ...]:
        """See `RowOrder`."""
        return (int,) if self.order.column == _FIRST else (datetime, int)

    def by(self) -> tuple[ColumnElement[object], ...]:
        """See `RowOrder`."""
        return self.order.by()

    def after(self, keys: tuple[Key, ...]) -> ColumnElement[bool]:
        """See `RowOrder`."""
        time = keys[0] if isinstance(keys[0], datetime) else None
        first = keys[-1]
        assert isinstance(first, int), "the last key is a sequence"
        return self.order.after(Place(time, first))

    def keys(self, row: Row[tuple[object, ...]]) -> tuple[Key, ...]:
        """See `RowOrder`."""
        first: int = row.first_sequence
        return (first,) if self.order.column == _FIRST else (getattr(row, self.order.column), first)


FLOWS = Kind(("flows",), select(schema.flow), lambda text: FlowOrder(parse_order(text)))
"""All flows."""


def flow_rows(found: Found) -> list[FlowRow]:
    """Returns the flows of a page."""
    return [FlowRow(flow=_flow(row), page_token=found.token(row)) for row in found.rows]


def _flow(row: Row[tuple[object, ...]]) -> Flow:
    return Flow(
        flow_id=row.flow_id,
        flow_type=row.flow_type,
        template_version=row.version,
        status=FlowStatus.Value(f"FLOW_STATUS_{row.status}"),
        status_reason=row.reason,
        start_time=None if row.started is None else timestamp(row.started),
        update_time=None if row.updated is None else timestamp(row.updated),
        requester=row.requester,
        last_sequence=row.last_sequence,
        etag=f"{row.last_sequence:x}",
        message_count=row.messages,
        halt_mode=row.halt_mode,
    )
