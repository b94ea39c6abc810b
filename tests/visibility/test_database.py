"""An index that can't be gone on with is computed anew; a database that can't be used is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text

from handrail.mesh.errors import HandrailError
from handrail.visibility.index import schema
from handrail.visibility.index.database import Position, begin_anew, open_engine, prepare, read_position
from handrail.visibility.index.writer import Writer
from tests.support.simulation import BEGINNING

if TYPE_CHECKING:
    import psycopg

CREATED = "2030-01-01T00:00:00Z"


def advanced(engine: Engine, sequence: int = 7) -> Position:
    """An index that covers something."""
    Writer(engine, prepare(engine, CREATED)).write([], sequence=sequence, time=BEGINNING)
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


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "index.db").touch()
    assert prepare(open_engine(f"sqlite:///{tmp_path}/index.db"), CREATED) == Position(CREATED)


def test_a_broken_file_is_renamed_and_the_index_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    engine = open_engine(f"sqlite:///{path}")
    for _ in range(2):  # the second broken file takes the place of the first
        advanced(engine)
        engine.dispose()
        damaged = path.read_bytes()[:100] + b"\xff" * (path.stat().st_size - 100)
        path.write_bytes(damaged)
        with pytest.raises(HandrailError, match=r"index\.db was renamed to index\.db\.broken"):
            prepare(engine, CREATED)
        assert (tmp_path / "index.db.broken").read_bytes() == damaged
        assert prepare(engine, CREATED) == Position(CREATED)
    engine.dispose()


@pytest.mark.parametrize("content", [b"PK", b"Dear Anna, this is no database, and there is no copy of it. " * 100])
def test_a_file_of_another_kind_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(HandrailError, match="letter is no file of SQLite: give another one"):
        prepare(open_engine(f"sqlite:///{path}"), CREATED)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [content]


def test_a_file_with_tables_of_others_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    others = create_engine(f"sqlite:///{path}")
    schema.metadata.create_all(others)  # even if they look like ours
    others.dispose()
    content = path.read_bytes()
    with pytest.raises(HandrailError, match=r"shop\.db holds tables that Handrail did not make"):
        prepare(open_engine(f"sqlite:///{path}"), CREATED)
    assert path.read_bytes() == content


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_tables_of_others_in_a_database_stay(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE public.flow AS SELECT 1 AS litres"))
        connection.execute(text("CREATE TABLE public.position AS SELECT 2 AS latitude"))
    advanced(engine)
    begin_anew(engine, CREATED)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT litres, latitude FROM public.flow, public.position")).all() == [(1, 2)]


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_schema_with_tables_of_others_is_refused_and_stays(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA handrail"))
        connection.execute(text("CREATE TABLE handrail.position AS SELECT 2 AS latitude"))
    for prepared in (prepare, begin_anew):
        with pytest.raises(HandrailError, match="the schema handrail holds tables that Handrail did not make"):
            prepared(engine, CREATED)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT latitude FROM handrail.position")).all() == [(2,)]


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_views_that_stop_another_release_are_named(engine: Engine) -> None:
    advanced(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW public.late AS SELECT flow_id FROM flow"))
        connection.execute(text(f"UPDATE position SET schema = {schema.SCHEMA + 1}"))
    with pytest.raises(HandrailError, match=r"depends on table flow.*; drop the views that read"):
        prepare(engine, CREATED)
    with engine.begin() as connection:
        connection.execute(text("DROP VIEW public.late"))
    assert prepare(engine, CREATED) == Position(CREATED)


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_schema_made_by_an_administrator_is_enough(address: str, engine: Engine) -> None:
    name = f"anna_{make_url(address).database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE USER {name}"))
    anna = open_engine(address.replace("//postgres@", f"//{name}@"))
    with pytest.raises(
        HandrailError, match=r"permission denied for database .*; the user must own the schema handrail"
    ):
        prepare(anna, CREATED)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA handrail AUTHORIZATION {name}"))
    assert prepare(anna, CREATED) == Position(CREATED)
    anna.dispose()


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_server_that_is_silent_is_given_up_unless_the_address_says_otherwise(address: str) -> None:
    for given, expected in (
        ("", ("10", "1min")),
        ("&connect_timeout=77&options=-cstatement_timeout%3D9s", ("77", "9s")),
    ):
        engine = open_engine(address + given)
        with engine.connect() as connection:
            driver = cast("psycopg.Connection[object]", connection.connection.driver_connection)
            parameters = driver.info.get_parameters()
            statement_timeout = connection.execute(text("SHOW statement_timeout")).scalar_one()
        assert (parameters["connect_timeout"], statement_timeout) == expected
        assert parameters["tcp_user_timeout"] == "30000"
        engine.dispose()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "index.db",
        "mysql://root@localhost/flows",
        "sqlite",
        "postgresql+nothing://x",
        "http://localhost",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://host/x",
    ],
)
def test_another_address_is_refused_with_the_forms_that_are_taken(address: str) -> None:
    with pytest.raises(HandrailError, match="sqlite:///FILE or postgresql://"):
        open_engine(address)


@pytest.mark.parametrize(
    "rest", ["se@cret@host/flows", "x:se@cret:x@host/flows", "se@cret/x@host/flows", "x@host:secret/"]
)
def test_an_address_with_a_wrong_password_or_port_is_refused_without_printing_it(rest: str) -> None:
    with pytest.raises(HandrailError, match="its address must be") as raised:
        open_engine(f"postgresql://anna:{rest}")
    assert "cret" not in raised.value.text
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


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
