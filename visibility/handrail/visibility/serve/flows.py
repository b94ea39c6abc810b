"""Flows of a list, as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace

from sqlalchemy import ColumnElement, Connection, Row

from handrail.index.v1.index_service_pb2 import FlowRow
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import Expectation, Flow
from handrail.v1.listing_pb2 import Total
from handrail.visibility.filter import Condition, Order, Place, parse_order
from handrail.visibility.search.page import Finder, Page
from handrail.visibility.serve.listing import COUNTED, Found, Kind, Part, RowOrder
from handrail.visibility.serve.page_token import Key


@dataclass(frozen=True, slots=True)
class FlowOrder:
    """An order of flows: by a time, and flows of the same time by their place in the stream."""

    order: Order

    @property
    def kinds(self) -> tuple[type[Key], ...]:
        """See `RowOrder`."""
        return (int,) if self.order.is_of_stream else (datetime, int)

    def by(self) -> tuple[ColumnElement[object], ...]:
        """See `RowOrder`."""
        return self.order.by()

    def after(self, keys: tuple[Key, ...]) -> ColumnElement[bool]:
        """See `RowOrder`."""
        return self.order.after(self.place(keys))

    def keys(self, row: Row[tuple[object, ...]]) -> tuple[Key, ...]:
        """See `RowOrder`."""
        return self.keys_of(self.order.place(row))

    def place(self, keys: tuple[Key, ...]) -> Place:
        """Returns the place that these keys name."""
        first = keys[-1]
        assert isinstance(first, int), "the last key is a sequence"
        return Place(keys[0] if isinstance(keys[0], datetime) else None, first)

    def keys_of(self, place: Place) -> tuple[Key, ...]:
        """Returns the keys that name a place."""
        return (place.first_sequence,) if self.order.is_of_stream else (place.time, place.first_sequence)


def _read(connection: Connection, chosen: Condition, order: RowOrder, after: tuple[Key, ...] | None, size: int) -> Part:
    assert isinstance(order, FlowOrder), "flows have no other orders"
    finder = Finder(connection, chosen)
    page = finder.page(order.order, size=size, after=None if after is None else order.place(after))
    end = None if page.next is None else order.keys_of(page.next)
    return Part(page.rows, end, None if after is not None else _total(finder, page))


def _total(finder: Finder, first: Page) -> Total:
    if first.next is None:
        return Total(items=len(first.rows))
    count = finder.count(COUNTED)
    return Total(items=max(count.flows, len(first.rows)), at_least=count.at_least)


FLOWS = Kind(("flows",), _read, lambda text: FlowOrder(parse_order(text)))
"""All flows."""


def flow_rows(found: Found, waits: Mapping[int, Sequence[Expectation]]) -> list[FlowRow]:
    """Returns the flows of a page, with what each waits for by its first sequence."""
    return [FlowRow(flow=_listed(row, waits), page_token=found.token(row)) for row in found.rows]


def _listed(row: Row[tuple[object, ...]], waits: Mapping[int, Sequence[Expectation]]) -> Flow:
    flow = _flow(row, archived=row.verdict is not None)
    flow.expectations.extend(waits.get(row.first_sequence, ()))
    return flow


def summary(fields: Mapping[str, object], *, archived: bool) -> Flow:
    """Returns a flow without its parts, by the fields of its row."""
    return _flow(SimpleNamespace(**fields), archived=archived)


def _flow(row: Row[tuple[object, ...]] | SimpleNamespace, *, archived: bool) -> Flow:
    return Flow(
        flow_id=row.flow_id,
        flow_type=row.flow_type,
        key=row.key,
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
        archived=archived,
    )
