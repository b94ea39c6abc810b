"""A page of a list: its statement, its rows, its total and its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal, select

from handrail.index.v1.index_service_pb2 import Query
from handrail.v1.listing_pb2 import Total
from handrail.visibility.filter import Condition, where
from handrail.visibility.index.database import Position
from handrail.visibility.serve.page_token import Key, Listing
from handrail.visibility.serve.selection import canonical, condition_of, tree_of

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


class Part(NamedTuple):
    """Rows of a list. `end` are the keys after which it goes on; None at its end. `total` is None where not asked."""

    rows: Rows
    end: tuple[Key, ...] | None
    total: Total | None


class Reader(Protocol):
    """How rows are read."""

    def __call__(
        self, connection: Connection, chosen: Condition, order: RowOrder, after: tuple[Key, ...] | None, size: int
    ) -> Part:
        """Reads the rows after these keys; None: the first ones, and the total. Raises what the database raises."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is listed: how its rows are read, and their orders by name. Equal lists have equal identities."""

    identity: tuple[object, ...]
    read: Reader
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
    chosen = condition_of(tree, query.scope, now)
    part = kind.read(connection, chosen, order, None if continued is None else continued.keys, query.page_size)
    total = continued.total if continued is not None else part.total or Total()
    token_after = listing.tokens(now, total)

    def token(row: Row[tuple[object, ...]]) -> str:
        return token_after(order.keys(row))

    return Found(part.rows, token, "" if part.end is None else token_after(part.end), total)


def of_statement(statement: Select[tuple[object, ...]]) -> Reader:
    """Returns how the rows of a statement are read that reads `schema.flow`, too."""

    def read(
        connection: Connection, chosen: Condition, order: RowOrder, after: tuple[Key, ...] | None, size: int
    ) -> Part:
        every = statement.where(where(chosen))
        rest = every if after is None else every.where(order.after(after))
        rows = connection.execute(rest.order_by(*order.by()).limit(size + 1)).all()
        shown, more = rows[:size], len(rows) > size
        total = None if after is not None else _total(connection, every, None if more else len(rows))
        return Part(shown, order.keys(shown[-1]) if more else None, total)

    return read


def _total(connection: Connection, chosen: Select[tuple[object, ...]], known: int | None) -> Total:
    if known is not None:
        return Total(items=known)
    some = chosen.with_only_columns(literal(1), maintain_column_froms=True).limit(COUNTED + 1).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return Total(items=min(count, COUNTED), at_least=count > COUNTED)
