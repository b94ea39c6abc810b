"""What indexes find of a condition, and the condition as a test of one flow after the other. Pure.

A search finds at least all flows of a condition: all that it finds are tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, FromClause, Select, and_, exists, false, literal, not_, or_, select, true

from handrail.mesh.fold.status import FINAL
from handrail.v1.decision_pb2 import FlowStatus
from handrail.visibility.filter.condition import (
    Affix,
    All,
    Compare,
    Condition,
    Contains,
    Either,
    HasRow,
    IsOneOf,
    No,
    OfFlow,
    Present,
    Test,
)
from handrail.visibility.filter.fields import STATUSES
from handrail.visibility.filter.sql import passes
from handrail.visibility.filter.syntax import Comparator
from handrail.visibility.filter.unindexed import Unindexed
from handrail.visibility.index import schema

_FOUND = schema.flow.alias("found")
_EQUAL_BY_INDEX = frozenset({"flow_type", "status", "requester"})
_RANGE_BY_INDEX = frozenset({"updated", "deadline"})
_MAX_LOOKUPS = 20
"""The most lookups of a search: SQLite joins at most 500 of them, and each takes its time."""

_ENDED = OfFlow("ended", Present())
_OPEN = frozenset(STATUSES) - {FlowStatus.Name(each).removeprefix("FLOW_STATUS_") for each in FINAL}
_SMALL = frozenset({schema.owed.name, schema.escalation.name})
"""Tables with rows of open flows alone: they are small enough to be read, in the order of the stream."""

_OPEN_ONLY = _SMALL | {schema.approval.name}
"""Tables in which only rows of open flows are looked for: few enough to be sorted."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rows of a table that an index finds. `is_ordered`: the first of them in the order of the stream come soon.

    `in_order` is where they are if the table is read in that order, if that is another condition.
    """

    table: FromClause
    where: tuple[ColumnElement[bool], ...]
    is_ordered: bool = False
    in_order: tuple[ColumnElement[bool], ...] = ()

    def select(self) -> Select[int]:
        """The statement for the flows, which may be in there more than once."""
        return select(self.table.c.first_sequence).where(*self.where)

    def ordered(self) -> Select[int]:
        """The same for the first ones in the order of the stream."""
        return select(self.table.c.first_sequence).where(*(self.in_order or self.where))


@dataclass(frozen=True, slots=True)
class Search:
    """Lookups that together find all flows of a condition."""

    lookups: tuple[Lookup, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether each lookup is in the order of the stream."""
        return all(each.is_ordered for each in self.lookups)


def searches(condition: Condition) -> Sequence[Search]:
    """Searches of which each finds all flows of a condition, and more; none if no index helps."""
    items = tuple(_conjuncts(condition))
    single = [found for item in items if (found := _search(item)) is not None]
    equal = {item.column: item for item in items if isinstance(item, OfFlow) and _is_equal(item.test)}
    if {"flow_type", "status"} <= equal.keys():
        both = tuple(_of_found(equal[column]) for column in ("flow_type", "status"))
        single.insert(0, Search((Lookup(_FOUND, both, is_ordered=True),)))
    if No(_ENDED) in items:
        deadlines = (_of_found(item) for item in items if isinstance(item, OfFlow) and item.column == "deadline")
        single.insert(0, Search((Lookup(_FOUND, (_FOUND.c.ended.is_(None), *deadlines)),)))
    return single


def is_of_open_flows(condition: Condition) -> bool:
    """Whether only flows that have not ended can pass: that follows from a status, too."""
    match condition:
        case All(items):
            return any(map(is_of_open_flows, items))
        case Either(items):
            return len(items) > 0 and all(map(is_of_open_flows, items))
        case OfFlow("status", Compare(Comparator.EQUAL, status)):
            return status in _OPEN
        case _:
            return condition == No(_ENDED)


def tested(condition: Condition) -> ColumnElement[bool]:
    """The expression that tests a row of `schema.flow`, and is never NULL; no index is used to find rows by it."""
    match condition:
        case All(items):
            return and_(true(), *map(tested, items))
        case Either(items):
            return or_(false(), *map(tested, items))
        case No(item):
            return not_(tested(item))
        case OfFlow(column, test):
            return _tested_column(column, test)
        case HasRow(table, tests) if table == schema.flow.name:
            return and_(*(_tested_column(column, test) for column, test in tests))
        case HasRow(table, tests):
            rows = schema.metadata.tables[table]
            same_flow = rows.c.first_sequence == schema.flow.c.first_sequence
            passed = (passes(Unindexed(rows.c[column]), test) for column, test in tests if column != "name")
            named = (passes(rows.c[column], test) for column, test in tests if column == "name")
            # With an offset, PostgreSQL looks at the rows of a flow at a time, and never at those of all flows.
            found = select(literal(1)).select_from(rows).where(same_flow, *named, *passed).offset(0)
            return exists(found.correlate(schema.flow))
        case IsOneOf(flows):
            flow = schema.flow.c
            return or_(
                false(),
                *(
                    and_(Unindexed(flow.flow_id) == each, Unindexed(flow.flow_type) == flow_type)
                    for flow_type, each in flows
                ),
            )


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, All):
        for item in condition.items:
            yield from _conjuncts(item)
    else:
        yield condition


def _search(condition: Condition) -> Search | None:
    match condition:
        case All():
            return next(iter(searches(condition)), None)
        case Either(()):
            return Search((Lookup(_FOUND, (false(),)),))
        case Either(items):
            found = [_search(item) for item in items]
            known = [each for each in found if each is not None]
            lookups = tuple(each for some in known for each in some.lookups)
            return Search(lookups) if len(known) == len(found) and len(lookups) <= _MAX_LOOKUPS else None
        case OfFlow(column, test):
            return _search_column(condition, column, test)
        case HasRow(table, tests):
            return _search_rows(table, tests)
        case IsOneOf(flows):
            return Search((Lookup(_FOUND, (_FOUND.c.flow_id.in_([flow_id for _, flow_id in flows]),)),))
        case _:
            return None


def _search_column(condition: OfFlow, column: str, test: Test) -> Search | None:
    if column in _EQUAL_BY_INDEX and _is_equal(test):
        return Search((Lookup(_FOUND, (_of_found(condition),), is_ordered=True),))
    if column == "retrying" and _is_equal(test) and isinstance(test, Compare) and test.value:
        return Search((Lookup(_FOUND, (_FOUND.c.retrying.is_(True),), is_ordered=True),))
    if column in _RANGE_BY_INDEX and isinstance(test, Compare):
        return Search((Lookup(_FOUND, (_of_found(condition),)),))
    return None


def _search_rows(table: str, tests: Sequence[tuple[str, Test]]) -> Search | None:
    column, test = tests[0] if table != schema.attribute.name else tests[-1]
    if table not in _OPEN_ONLY and not _is_found(test):
        return None
    rows = _FOUND if table == schema.flow.name else schema.metadata.tables[table]
    where = tuple(passes(rows.c[name], each) for name, each in tests)
    if table in _SMALL:
        in_order = tuple(passes(Unindexed(rows.c[name]), each) for name, each in tests)
        return Search((Lookup(rows, where, is_ordered=True, in_order=in_order),))
    is_ordered = table in _OPEN_ONLY or (_is_equal(test) and column in ("text", "number", "error_class"))
    return Search((Lookup(rows, where, is_ordered=is_ordered),))


def _is_equal(test: Test) -> bool:
    return isinstance(test, Compare) and test.comparator is Comparator.EQUAL


def _is_found(test: Test) -> bool:
    """Whether the rows that pass are side by side in an index."""
    match test:
        case Compare(comparator):
            return comparator is not Comparator.NOT_EQUAL
        case Affix():
            return not test.open_start
        case Contains():
            return False
        case Present():
            return True


def _of_found(condition: OfFlow) -> ColumnElement[bool]:
    return passes(_FOUND.c[condition.column], condition.test)


def _tested_column(name: str, test: Test) -> ColumnElement[bool]:
    column = schema.flow.c[name]
    passed = passes(Unindexed(column), test)
    return and_(Unindexed(column).is_not(None), passed) if column.nullable else passed
