"""The database answers a filter as plain Python does, and never raises for what somebody typed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from sqlalchemy import URL, ColumnElement, Connection, Engine, delete, insert, select

from handrail.mesh.errors import HandrailError
from handrail.visibility.filter import check, parse, text_of, where
from handrail.visibility.filter.syntax import Node
from handrail.visibility.index import schema
from tests.support.filter_examples import CONDITIONS, FILTERS, SCOPE, TYPED, population, store
from tests.support.filter_meaning import holds

VALUE = '"zq\'; DROP TABLE flow; --"'
FLOWS = population(80)
SHARED = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def stored(tables: Engine) -> Iterator[Connection]:
    """A connection that sees FLOWS."""
    with tables.connect() as connection:
        store(connection, FLOWS)
        yield connection
        connection.rollback()


def found(connection: Connection, node: Node) -> list[int]:
    """The flows that the database finds, the oldest first."""
    first = schema.flow.c.first_sequence
    return list(connection.scalars(select(first).where(where(check(node, SCOPE))).order_by(first)))


def meant(node: Node) -> list[int]:
    """The flows for which a filter holds, the oldest first."""
    return [first for first, flow in enumerate(FLOWS, 1) if holds(node, flow)]


def test_the_database_finds_the_flows_for_which_a_condition_holds(stored: Connection) -> None:
    wrong = [text_of(node) for node in CONDITIONS if found(stored, node) != meant(node)]
    assert wrong == []


@SHARED
@given(node=FILTERS)
def test_the_database_finds_the_flows_for_which_a_filter_holds(stored: Connection, node: Node) -> None:
    assert found(stored, node) == meant(node)


def test_a_long_number_is_not_taken_for_its_neighbour(stored: Connection) -> None:
    numbers = (2**53, 2**53 + 1, -(2**53) - 1, 2**63)
    stored.execute(delete(schema.attribute))
    rows = [
        {"first_sequence": first, "name": "amount", "text": str(number), "number": float(number)}
        for first, number in enumerate(numbers, 1)
    ]
    stored.execute(insert(schema.attribute), rows)
    for first, number in enumerate(numbers[1:], 2):
        assert found(stored, parse(f"amount = {number}")) == [first]


def test_conditions_tell_flows_apart() -> None:
    sizes = [len(meant(node)) for node in CONDITIONS]
    assert sum(0 < size < len(FLOWS) for size in sizes) > 0.8 * len(sizes)


@SHARED
@given(text=TYPED)
@example("version > 2147483647 messages < 0")
@example("age < 36500d deadline > 36500d")
@example("started > 0001-01-01T00:00:00+23:59 ended < 9999-12-31T23:59:59-23:59")
@example('requester = "\U0010ffff*" OR attributes.amount < 1e308')
def test_whatever_is_typed_is_refused_or_answered(tables: Engine, text: str) -> None:
    expression = expression_or_refusal(text)
    if isinstance(expression, HandrailError):
        assert (expression.reason_name, expression.text.isprintable()) == ("BAD_FILTER", True)
        return
    with tables.connect() as connection:
        assert connection.scalars(select(schema.flow.c.first_sequence).where(expression)).all() == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql+psycopg"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{name} {comparator} {VALUE}"
            for name in ("agent", "requester", "amount")
            for comparator in ("=", "!=", ":")
        ),
        *(f'amount = "{start}{VALUE[1:-1]}{end}"' for start in ("", "*") for end in ("", "*")),
        f"amount < {VALUE}",
        VALUE,
    ],
)
def test_values_are_bound_parameters(database: str, text: str) -> None:
    statement = select(schema.flow.c.first_sequence).where(where(check(parse(text), SCOPE)))
    compiled = statement.compile(dialect=URL.create(database).get_dialect()())
    assert "zq" not in str(compiled)
    assert any("zq" in str(value) for value in compiled.params.values())


def expression_or_refusal(text: str) -> ColumnElement[bool] | HandrailError:
    """What `where` makes of a filter, or why it is refused."""
    try:
        return where(check(parse(text), SCOPE))
    except HandrailError as error:
        return error
