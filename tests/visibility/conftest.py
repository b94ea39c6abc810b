"""Each test that takes a database runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.visibility.archive.folder import Folder
from handrail.visibility.index.database import open_engine, prepare
from tests.support.postgresql import PostgresServer, running_postgres
from tests.support.waiting import PATIENCE


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinators wait for visibility as long as a call may take, however busy the machine is."""
    lists = (f"api.{each}_lists" for each in ("act", "approval", "divergence", "failure", "flow", "usage"))
    for module in (*lists, "api.flow_lookup", "lists.archive"):
        monkeypatch.setattr(f"handrail.coordinator.{module}.LONGEST", timedelta(seconds=PATIENCE))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of a process."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/index.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def engine(address: str) -> Iterator[Engine]:
    """An empty database."""
    engine = open_engine(address)
    yield engine
    engine.dispose()


@pytest.fixture
def tables(engine: Engine) -> Engine:
    """A database with the tables of an index without flows."""
    prepare(engine, "now")
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The folder of an archive that does not exist yet."""
    return Folder(tmp_path / "archive")
