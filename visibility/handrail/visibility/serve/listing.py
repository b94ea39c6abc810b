"""A page of a list: its statement, its rows, its total and its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal, select

from handrail.index.v1.index_service_pb2 import Query
from handrail.v1.listing_pb2 import Total
from handrail.visibility.index.database import Position
from handrail.visibility.serve.page_token import Key, Listing
from handrail.visibility.serve.selection import canonical, selected, tree_of

COUNTED = 1000
"""Rows are counted up to this number: it takes as long as listing as many of them."""

Rows = Sequence[Row[tuple[object, ...]]]


class RowOrder(Protocol):
    """A total order of rows."""

    @property
    def kinds(self) -> tuple[type[Key], ...]:
        """The types of the keys of a row."""

    def by(self) -> tuple[ColumnElement[object], ...]:
        """Returns the arguments for `order_by`."""

    def after(self, keys: tuple[Key, ...]) -> ColumnElement[bool]:
        """Returns the condition for the rows after the one with these keys."""

    def keys(self, row: Row[tuple[object, ...]]) -> tuple[Key, ...]:
        """Returns the keys of a row."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is listed: the rows of a statement, and their orders by name. Equal lists have equal identities."""

    identity: tuple[object, ...]
    statement: Select[tuple[object, ...]]
    order: Callable[[str], RowOrder]


class Found(NamedTuple):
    """A page. `token` gives the token after a row; `next_token` is empty on the last page."""

    rows: Rows
    token: Callable[[Row[tuple[object, ...]]], str]
    next_token: str
    total: Total


def page(connection: Connection, position: Position, kind: Kind, query: Query) -> Found:
    """Reads a page of what the query selects. Raises BAD_FILTER, BAD_PAGE_TOKEN and what the database raises."""
    tree, order = tree_of(query.filters), kind.order(query.order_by)
    listing = Listing(position.stream_created, kind.identity, canonical(tree), order, kinds=order.kinds)
    continued = listing.read(query.page_token)
    now = datetime.now(UTC) if continued is None else continued.now
    chosen = kind.statement.where(selected(tree, query.scope, now))
    rest = chosen if continued is None else chosen.where(order.after(continued.keys))
    rows = connection.execute(rest.order_by(*order.by()).limit(query.page_size + 1)).all()
    shown, more = rows[: query.page_size], len(rows) > query.page_size
    total = continued.total if continued is not None else _total(connection, chosen, None if more else len(rows))
    token_after = listing.tokens(now, total)

    def token(row: Row[tuple[object, ...]]) -> str:
        return token_after(order.keys(row))

    return Found(shown, token, token(shown[-1]) if more else "", total)


def _total(connection: Connection, chosen: Select[tuple[object, ...]], known: int | None) -> Total:
    if known is not None:
        return Total(items=known)
    some = chosen.with_only_columns(literal(1), maintain_column_froms=True).limit(COUNTED + 1).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return Total(items=min(count, COUNTED), at_least=count > COUNTED)
