"""Whatever strangers send can be stored: a text that a database refuses must not stop the index."""

import pytest
from sqlalchemy import Engine, select

from handrail.mesh.errors import HandrailError
from handrail.visibility.index import schema
from handrail.visibility.index.database import prepare
from handrail.visibility.index.rows import FlowRows, Row, unreadable_row
from handrail.visibility.index.writer import Writer
from tests.support.simulation import BEGINNING

HOSTILE = [
    "a\0b",
    "\0",
    "x" * 1_000_000,
    "\u202e\u2066\ufeff",
    "\U0001f600" * 5_000,
    "'; DROP TABLE flow; --",
    "\x1b[31m",
    "%s %(x)s {} :name ?",
]


def flow(sequence: int, **fields: object) -> Row:
    row = unreadable_row("refund", f"{sequence:032x}", first=sequence, last=sequence, time=BEGINNING, why="").flow
    return {**row, **fields}


def stored(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(schema.flow).order_by(schema.flow.c.first_sequence))]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_stored(engine: Engine, text: str) -> None:
    prepare(engine, "now")
    names = ("flow_type", "flow_id", "status", "reason", "requester", "unreadable")
    owed = {"first_sequence": 1, "step": text, "agent": text, "runs": 1, "attempt": 1, "due": None}
    attribute = {"first_sequence": 1, "name": text, "text": text, "number": None}
    rows = FlowRows(flow(1, **dict.fromkeys(names, text)), owed=[owed], attributes=[attribute])
    Writer(engine).write([rows], sequence=1, time=BEGINNING)
    (row,) = stored(engine)
    expected = text.replace("\0", "\ufffd")
    found = dict(zip((column.name for column in schema.flow.c), row, strict=True))
    assert found["reason"] == expected[: schema.SENTENCE]
    assert found["requester"] == expected[: schema.NAME]


def test_the_largest_numbers_are_stored(engine: Engine) -> None:
    prepare(engine, "now")
    largest = flow(2**63 - 1, version=2**32 - 1, messages=2**32 - 1)
    Writer(engine).write([FlowRows(largest)], sequence=2**63 - 1, time=BEGINNING)
    assert len(stored(engine)) == 1


def test_a_flow_is_replaced_and_its_parts_with_it(engine: Engine) -> None:
    prepare(engine, "now")
    writer = Writer(engine)
    owed = {"first_sequence": 1, "step": "pay", "agent": "ledger", "runs": 1, "attempt": 1, "due": BEGINNING}
    writer.write([FlowRows(flow(1, status="RUNNING"), owed=[owed]), FlowRows(flow(2))], sequence=2, time=BEGINNING)
    writer.write([FlowRows(flow(1, status="COMPLETED"))], sequence=3, time=BEGINNING)
    assert [row[4] for row in stored(engine)] == ["COMPLETED", ""]
    with engine.connect() as connection:
        assert connection.execute(select(schema.owed)).all() == []


def test_known_flows_are_told_by_type_and_id(engine: Engine) -> None:
    prepare(engine, "now")
    writer = Writer(engine)
    writer.write([FlowRows(flow(number)) for number in range(1, 1200)], sequence=1, time=BEGINNING)
    asked = {f"{number:032x}" for number in range(1000, 2600)}
    assert writer.known(asked) == {("refund", f"{number:032x}") for number in range(1000, 1200)}
    assert writer.known(set()) == set()


def test_what_the_database_refuses_is_told_on_one_line_and_nothing_is_stored(engine: Engine) -> None:
    prepare(engine, "now")
    with pytest.raises(HandrailError) as raised:
        Writer(engine).write([FlowRows(flow(1)), FlowRows(flow(2, flow_type=None))], sequence=2, time=BEGINNING)
    assert "\n" not in raised.value.text
    assert "INSERT" not in raised.value.text
    assert stored(engine) == []
