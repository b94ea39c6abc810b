"""Whatever strangers send can be stored: a text that a database refuses must not stop the index."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, select

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.ids import LONGEST_KEY
from handrail.visibility.index import schema
from handrail.visibility.index.database import begin_anew, open_engine, prepare
from handrail.visibility.index.rows import FlowRows, Row, rows_of, unfolded_rows
from handrail.visibility.index.writer import Writer
from tests.support.flows import received, template
from tests.support.followed import one_state, require_hours_of_rows
from tests.support.simulation import BEGINNING, Simulation

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


@cache
def begun() -> Row:
    """The row of a flow that has just begun."""
    simulation = Simulation(template())
    simulation.say(simulation.start(received(), agent="detection"))
    row = rows_of(simulation.flow, ()).flow
    assert row is not None
    return row


def flow(sequence: int, **fields: object) -> Row:
    """The same, at another position."""
    return {**begun(), "first_sequence": sequence, "flow_id": f"{sequence:032x}", **fields}


def rows(row: Row, **parts: list[Row]) -> FlowRows:
    return FlowRows(str(row["flow_type"]), str(row["flow_id"]), row, **parts)  # type: ignore[arg-type]


def new_writer(engine: Engine) -> Writer:
    return Writer(engine, prepare(engine, "now"))


def by_hour(engine: Engine) -> dict[tuple[str, datetime], tuple[int, int]]:
    """How many flows began and failed, by type and hour; all of it is what their rows say."""
    with one_state(engine) as connection:
        require_hours_of_rows(connection)
        found = connection.execute(select(schema.flow_hour))
        return {(each.flow_type, each.hour): (each.began, each.failed) for each in found if each.began or each.failed}


def stored(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(schema.flow).order_by(schema.flow.c.first_sequence))]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_stored(engine: Engine, text: str) -> None:
    writer = new_writer(engine)
    names = ("flow_type", "flow_id", "status", "reason", "requester", "key")
    owed = {"first_sequence": 1, "step": text, "agent": text, "runs": 1, "attempt": 1, "due": None}
    attribute = {"first_sequence": 1, "name": text, "text": text, "number": None}
    hostile = rows(flow(1, **dict.fromkeys(names, text)), owed=[owed], attributes=[attribute])
    unfolded = unfolded_rows(text, text, sequence=1, time=BEGINNING, why=text)
    writer.write([hostile, unfolded], sequence=1, time=BEGINNING)
    (row,) = stored(engine)
    expected = text.replace("\0", "\ufffd")
    found = dict(zip((column.name for column in schema.flow.c), row, strict=True))
    assert found["reason"] == expected[: schema.SENTENCE]
    assert found["requester"] == expected[: schema.NAME]
    assert found["key"] == expected[:LONGEST_KEY]


def test_the_largest_numbers_are_stored(engine: Engine) -> None:
    writer = new_writer(engine)
    largest = flow(2**63 - 1, version=2**32 - 1, messages=2**32 - 1)
    writer.write([rows(largest)], sequence=2**63 - 1, time=BEGINNING)
    assert len(stored(engine)) == 1


def test_a_flow_is_replaced_and_its_parts_with_it(engine: Engine) -> None:
    writer = new_writer(engine)
    owed = {"first_sequence": 1, "step": "pay", "agent": "ledger", "runs": 1, "attempt": 1, "due": BEGINNING}
    writer.write([rows(flow(1, status="RUNNING"), owed=[owed]), rows(flow(2))], sequence=2, time=BEGINNING)
    writer.write([rows(flow(1, status="COMPLETED"))], sequence=3, time=BEGINNING)
    assert [row[4] for row in stored(engine)] == ["COMPLETED", "RUNNING"]
    with engine.connect() as connection:
        assert connection.execute(select(schema.owed)).all() == []


def test_flows_are_counted_by_hour_as_their_rows_say(engine: Engine) -> None:
    writer = new_writer(engine)
    later = BEGINNING + timedelta(hours=3)
    writer.write([rows(flow(1)), rows(flow(2)), rows(flow(3, started=later))], sequence=1, time=BEGINNING)
    assert by_hour(engine) == {("refund", BEGINNING): (2, 0), ("refund", later): (1, 0)}
    failed = {"status": "FAILED", "ended": later + timedelta(minutes=59)}
    for _ in range(2):  # the same again changes nothing
        writer.write([rows(flow(1, **failed)), rows(flow(2, **failed))], sequence=2, time=BEGINNING)
        assert by_hour(engine) == {("refund", BEGINNING): (2, 0), ("refund", later): (1, 2)}
    writer.write([rows(flow(1, status="RUNNING"))], sequence=3, time=BEGINNING)
    assert by_hour(engine) == {("refund", BEGINNING): (2, 0), ("refund", later): (1, 1)}
    why = unfolded_rows("refund", f"{2:032x}", sequence=4, time=BEGINNING, why="its template is gone")
    writer.write([replace(why, has_beginning=True)], sequence=4, time=BEGINNING)
    assert by_hour(engine) == {("refund", BEGINNING): (1, 0), ("refund", later): (1, 0)}


def test_more_flows_than_a_statement_takes_are_counted(engine: Engine) -> None:
    writer = new_writer(engine)
    for _ in range(2):
        writer.write([rows(flow(number)) for number in range(1, 1200)], sequence=1, time=BEGINNING)
    assert by_hour(engine) == {("refund", BEGINNING): (1199, 0)}


def test_known_flows_are_told_by_type_and_id(engine: Engine) -> None:
    writer = new_writer(engine)
    writer.write([rows(flow(number)) for number in range(1, 1200)], sequence=1, time=BEGINNING)
    asked = {f"{number:032x}" for number in range(1000, 2600)}
    assert writer.known(asked) == {("refund", f"{number:032x}") for number in range(1000, 1200)}
    assert writer.known(set()) == set()


def test_what_the_database_refuses_is_told_on_one_line_and_nothing_is_stored(engine: Engine) -> None:
    writer = new_writer(engine)
    with pytest.raises(HandrailError) as raised:
        writer.write([rows(flow(1)), rows(flow(2, status=None))], sequence=2, time=BEGINNING)
    assert "\n" not in raised.value.text
    assert "INSERT" not in raised.value.text
    assert stored(engine) == []


def test_a_writer_whose_index_went_on_without_it_is_refused(engine: Engine) -> None:
    late, other = new_writer(engine), new_writer(engine)
    other.write([rows(flow(1, status="COMPLETED"))], sequence=2, time=BEGINNING)
    with pytest.raises(HandrailError, match="another process writes to this index"):
        late.write([rows(flow(1, status="RUNNING"))], sequence=1, time=BEGINNING)
    assert prepare(engine, "now").sequence == 2
    assert [row[4] for row in stored(engine)] == ["COMPLETED"]


@pytest.mark.parametrize("stream_created", ["now", "later"])
def test_a_writer_whose_index_was_begun_anew_is_refused(engine: Engine, stream_created: str) -> None:
    late = new_writer(engine)
    late.write([], sequence=7, time=BEGINNING)
    begin_anew(engine, stream_created)
    with pytest.raises(HandrailError, match="was begun anew"):
        late.write([rows(flow(1))], sequence=8, time=BEGINNING)
    assert prepare(engine, stream_created).sequence == 0
    assert stored(engine) == []


def test_a_writer_of_another_stream_is_refused_at_the_beginning_too(engine: Engine) -> None:
    late = new_writer(engine)
    begin_anew(engine, "later")
    with pytest.raises(HandrailError, match="was begun anew"):
        late.write([rows(flow(1))], sequence=1, time=BEGINNING)
    assert stored(engine) == []


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_nothing_is_written_into_an_index_while_it_is_emptied(address: str, engine: Engine) -> None:
    impatient = open_engine(f"{address}&options=-clock_timeout%3D100ms")
    late = new_writer(impatient)
    refusals: list[object] = []

    def write_meanwhile(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM flow") and not refusals:
            with pytest.raises(HandrailError, match="lock timeout") as raised:
                late.write([rows(flow(1))], sequence=1, time=BEGINNING)
            refusals.append(raised)

    event.listen(engine, "after_cursor_execute", write_meanwhile)
    begin_anew(engine, "now")
    impatient.dispose()
    assert refusals
    assert stored(engine) == []


def test_a_file_that_breaks_while_it_is_written_is_renamed_and_the_index_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    engine = open_engine(f"sqlite:///{path}")
    writer = new_writer(engine)
    writer.write([rows(flow(1))], sequence=1, time=BEGINNING)
    engine.dispose()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))
    with pytest.raises(HandrailError, match=r"index\.db was renamed to index\.db\.broken"):
        writer.write([rows(flow(2))], sequence=2, time=BEGINNING)
    new_writer(engine).write([rows(flow(3))], sequence=3, time=BEGINNING)
    assert [row[0] for row in stored(engine)] == [3]
    engine.dispose()
