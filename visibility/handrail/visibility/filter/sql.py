"""What a filter asks for, as a boolean expression of SQL. Every value in it is a bound parameter. Pure.

SQLite and PostgreSQL give the same answers: texts are ordered by code points, whatever the database's collation, and
only the letters of ASCII are equal to their capitals.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType

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
from handrail.visibility.filter.syntax import Comparator
from handrail.visibility.index import schema

_OPERATORS: Mapping[Comparator, OperatorType] = {
    Comparator.EQUAL: operators.eq,
    Comparator.NOT_EQUAL: operators.ne,
    Comparator.LESS: operators.lt,
    Comparator.AT_MOST: operators.le,
    Comparator.GREATER: operators.gt,
    Comparator.AT_LEAST: operators.ge,
}
_EQUALITY = (Comparator.EQUAL, Comparator.NOT_EQUAL)
_FOUND = schema.flow.alias("found")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LAST, _BEFORE_SURROGATES, _AFTER_SURROGATES = 0x10FFFF, 0xD7FF, 0xE000


def where(condition: Condition) -> ColumnElement[bool]:
    """Returns the expression for a `select` from `schema.flow`; it is never NULL."""
    match condition:
        case All(items):
            return and_(true(), *map(where, items))
        case Either(items):
            return _either(items)
        case No(item):
            return not_(where(item))
        case OfFlow(column, test):
            tested = schema.flow.c[column]
            passed = passes(tested, test)
            return and_(tested.is_not(None), passed) if tested.nullable else passed
        case HasRow() if _is_in_many_flows(condition):
            same_flow = schema.attribute.c.first_sequence == schema.flow.c.first_sequence
            return exists().where(same_flow, *_tests(condition)).correlate(schema.flow)
        case HasRow() | IsOneOf():
            return schema.flow.c.first_sequence.in_(_search(condition))


def _either(items: Iterable[Condition]) -> ColumnElement[bool]:
    """Looks up all rows at once: SQLite joins several searches by walking through all flows."""
    searches: list[Select[tuple[int]]] = []
    others: list[ColumnElement[bool]] = []
    for item in items:
        if isinstance(item, IsOneOf) or (isinstance(item, HasRow) and not _is_in_many_flows(item)):
            searches.append(_search(item))
        else:
            others.append(where(item))
    if searches:
        found = union_all(*searches) if len(searches) > 1 else searches[0]
        others.append(schema.flow.c.first_sequence.in_(found))
    return or_(false(), *others)


def _is_in_many_flows(condition: HasRow) -> bool:
    """Whether each flow's rows are looked at, one flow after the other; otherwise rows are searched, then their flows.

    If most flows have such a row, the first page is there soonest so. An attribute may be in most flows, and so may a
    range of its values; other tables have rows for open or failed flows only. A flow's id is searched for, because
    SQLite would rather walk through all flows of a type in their order than sort the one that it finds.
    """
    column, test = condition.tests[-1]
    is_range = isinstance(test, Compare) and test.comparator is not Comparator.EQUAL
    return condition.table == schema.attribute.name and (is_range or column == "name")


def _search(condition: HasRow | IsOneOf) -> Select[tuple[int]]:
    """The `first_sequence` of the flows that a condition names."""
    if isinstance(condition, HasRow):
        return select(_table(condition).c.first_sequence).where(*_tests(condition))
    # No index of SQLite finds pairs: it finds the ids, and the types are compared afterwards.
    has_id = _FOUND.c.flow_id.in_([flow_id for _, flow_id in condition.flows])
    has_both = (_FOUND.c.flow_type + "/" + _FOUND.c.flow_id).in_(map("/".join, condition.flows))
    return select(_FOUND.c.first_sequence).where(has_id, has_both)


def _table(condition: HasRow) -> FromClause:
    return _FOUND if condition.table == schema.flow.name else schema.metadata.tables[condition.table]


def _tests(condition: HasRow) -> Iterator[ColumnElement[bool]]:
    columns = _table(condition).c
    return (passes(columns[column], test) for column, test in condition.tests)


def passes(column: ColumnElement[object], test: Test) -> ColumnElement[bool]:
    """Returns the expression for a test of a column; NULL if the column is empty."""
    match test:
        case Present():
            return column.is_not(None)
        case Compare(comparator, value):
            ordered = isinstance(value, str) and comparator not in _EQUALITY
            compared = _ByCodePoint(column) if ordered else column
            return compared.operate(_OPERATORS[comparator], value)
        case Contains(text):
            return _Lower(column).contains(text.translate(_LOWER), autoescape=True)
        case Affix(text, open_start=False):
            return _begins(column, text)
        case Affix(text, open_end=False):
            end = func.substr(column, func.length(column) - len(text) + 1)
            return end == text
        case Affix(text):
            return func.replace(column, text, "") != column


def _begins(column: ColumnElement[object], text: str) -> ColumnElement[bool]:
    """A range of texts, which an index of SQLite can find."""
    coded = _ByCodePoint(column)
    stem = text.rstrip(chr(_LAST))
    if not stem:
        return coded >= text
    last = ord(stem[-1])
    after = stem[:-1] + chr(_AFTER_SURROGATES if last == _BEFORE_SURROGATES else last + 1)
    return and_(coded >= text, coded < after)


class _ByCodePoint(FunctionElement[str]):
    """A text that is compared by its code points."""

    type = Text()
    inherit_cache = True


class _Lower(FunctionElement[str]):
    """A text with the capitals of ASCII, and no others, in lower case."""

    type = Text()
    inherit_cache = True


@compiles(_ByCodePoint)
def _by_code_point(element: _ByCodePoint, compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_ByCodePoint, "postgresql")
def _by_code_point_in_postgresql(element: _ByCodePoint, compiler: SQLCompiler, **options: object) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


@compiles(_Lower)
def _lower(element: _Lower, compiler: SQLCompiler, **options: object) -> str:
    return f"lower({compiler.process(element.clauses, **options)})"


@compiles(_Lower, "postgresql")
def _lower_in_postgresql(element: _Lower, compiler: SQLCompiler, **options: object) -> str:
    return f'lower({compiler.process(element.clauses, **options)} COLLATE "C")'
