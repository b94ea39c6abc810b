"""An index that can't be gone on with is computed anew; a database that can't be used is named."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from handrail.mesh.errors import HandrailError
from handrail.visibility.index import schema
from handrail.visibility.index.database import Position, begin_anew, open_engine, prepare, read_position
from handrail.visibility.index.writer import Writer
from tests.support.simulation import BEGINNING

CREATED = "2030-01-01T00:00:00Z"


def advanced(engine: Engine, sequence: int = 7) -> Position:
    """An index that covers something."""
    prepare(engine, CREATED)
    Writer(engine).write([], sequence=sequence, time=BEGINNING)
    return Position(CREATED, sequence, BEGINNING)


def test_an_empty_database_is_prepared(engine: Engine) -> None:
    assert prepare(engine, CREATED) == Position(CREATED)
    assert set(inspect(engine).get_table_names()) == set(schema.metadata.tables)


def test_an_index_of_this_stream_is_gone_on_with(engine: Engine) -> None:
    position = advanced(engine)
    assert prepare(engine, CREATED) == position


def test_an_index_of_another_stream_is_emptied(engine: Engine) -> None:
    advanced(engine)
    assert prepare(engine, "2031-01-01T00:00:00Z") == Position("2031-01-01T00:00:00Z")


def test_an_index_of_another_schema_is_emptied(engine: Engine) -> None:
    advanced(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE position SET schema = {schema.SCHEMA + 1}"))
    assert prepare(engine, CREATED) == Position(CREATED)


def test_an_index_with_other_columns_is_emptied(engine: Engine) -> None:
    advanced(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE position DROP COLUMN time"))
    assert prepare(engine, CREATED) == Position(CREATED)


def test_an_index_can_be_begun_anew(engine: Engine) -> None:
    advanced(engine)
    assert begin_anew(engine, CREATED) == Position(CREATED)
    with engine.connect() as connection:
        assert read_position(connection) == Position(CREATED)


@pytest.mark.parametrize("damage", [b"", b"this is no database at all, and long enough to be one"])
def test_a_broken_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "index.db"
    engine = open_engine(f"sqlite:///{path}")
    advanced(engine)
    engine.dispose()
    for each in tmp_path.iterdir():
        each.unlink()
    path.write_bytes(damage * 100)
    assert prepare(open_engine(f"sqlite:///{path}"), CREATED) == Position(CREATED)


def test_a_file_with_broken_pages_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    engine = open_engine(f"sqlite:///{path}")
    advanced(engine)
    engine.dispose()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    assert prepare(open_engine(f"sqlite:///{path}"), CREATED) == Position(CREATED)


@pytest.mark.parametrize(
    "address",
    ["", "index.db", "mysql://root@localhost/flows", "sqlite", "postgresql+nothing://x", "http://localhost"],
)
def test_another_address_is_refused_with_the_forms_that_are_taken(address: str) -> None:
    with pytest.raises(HandrailError, match="sqlite:///FILE or postgresql://"):
        open_engine(address)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HandrailError, match=r"nowhere/index\.db does not exist"):
        open_engine(f"sqlite:///{tmp_path}/nowhere/index.db")


def test_a_server_that_is_away_is_an_error_without_the_password() -> None:
    engine = open_engine("postgresql://anna:secret@127.0.0.1:1/flows")
    with pytest.raises(HandrailError) as raised:
        prepare(engine, CREATED)
    assert "can't be used" in raised.value.text
    assert "secret" not in raised.value.text
    assert "\n" not in raised.value.text
