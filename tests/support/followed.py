"""Follows flows into an index, and tells what an index should hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Table, select

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.mesh.wire.subjects import IDENTIFIER, NAME
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.follow.follower import Follower
from handrail.visibility.follow.load import Load
from handrail.visibility.index import schema
from handrail.visibility.index.database import SQLITE, read_position
from handrail.visibility.index.rows import FlowRows, rows_of, unfolded_rows
from tests.support.waiting import PATIENCE, until

Rows = Mapping[str, list[tuple[object, ...]]]
"""Maps the name of a table to its rows, sorted."""

_FIELDS: Mapping[Table, str] = {
    schema.owed: "owed",
    schema.approval: "approvals",
    schema.act: "acts",
    schema.escalation: "escalations",
    schema.attribute: "attributes",
    schema.divergence: "divergences",
    schema.failure: "failures",
}


@asynccontextmanager
async def following(
    bus: NatsBus, engine: Engine, archive: LockedFolder | None = None, *, load: Load | None = None
) -> AsyncIterator[Follower]:
    """Keeps an index, and an archive that seals each batch at once, while the block runs."""
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    follower, stopping = Follower(bus, engine, archive, age=timedelta(), load=load), asyncio.Event()
    work = asyncio.create_task(follower.run(stopping))
    try:
        yield follower
        assert not work.done(), "the follower ended by itself"
    finally:
        stopping.set()
        await work


async def until_covered(bus: NatsBus, engine: Engine) -> None:
    """Waits until the index covers what FLOW holds now. Processes that begin on a busy machine take their time."""
    last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
    await until(lambda: covered(engine) >= last, within=3 * PATIENCE)


def covered(engine: Engine) -> int:
    """The sequence up to which the index covers FLOW; 0 without an index."""
    with suppress(Exception), engine.connect() as connection:
        position = read_position(connection)
        return 0 if position is None else position.sequence
    return 0


@contextmanager
def one_state(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one state of the index, whatever is written meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == SQLITE:
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def require_hours_of_rows(connection: Connection) -> None:
    """Raises AssertionError unless the counts by hour are what the rows of the flows say."""
    flow, wanted = schema.flow.c, Counter[tuple[str, datetime, str]]()
    for row in connection.execute(select(flow.flow_type, flow.status, flow.started, flow.ended)):
        wanted[row.flow_type, _hour(row.started), "began"] += 1
        if row.status == "FAILED":
            wanted[row.flow_type, _hour(row.ended), "failed"] += 1
    counted = Counter[tuple[str, datetime, str]]()
    for row in connection.execute(select(schema.flow_hour)):
        counted[row.flow_type, row.hour, "began"] = row.began
        counted[row.flow_type, row.hour, "failed"] = row.failed
    assert +counted == wanted
    assert min(counted.values(), default=0) >= 0


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def found(engine: Engine) -> Rows:
    """All rows of an index, whose counts by hour are what these say."""
    with one_state(engine) as connection:
        require_hours_of_rows(connection)
        return {
            table.name: sorted(tuple(row) for row in connection.execute(select(table)))
            for table in (schema.flow, schema.unfolded, *_FIELDS)
        }


async def expected(bus: NatsBus, store: FlowStore) -> Rows:
    """The rows of all flows in FLOW, each read whole and folded at once."""
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", {"subjects_filter": "flow.>"})
    keys = {(tokens[1], tokens[2]) for subject in info["state"]["subjects"] if len(tokens := subject.split(".", 3)) > 3}
    flows = [
        await _rows(store, flow_type, flow_id)
        for flow_type, flow_id in sorted(keys)
        if NAME.fullmatch(flow_type) and IDENTIFIER.fullmatch(flow_id)
    ]
    rows = {
        table.name: sorted(tuple(row[name] for name in _columns(table)) for row in some)
        for table, some in (
            (schema.flow, [each.flow for each in flows if each.flow is not None]),
            (schema.unfolded, [each.unfolded for each in flows if each.unfolded is not None]),
        )
    }
    for table, field in _FIELDS.items():
        rows[table.name] = sorted(
            tuple(row[name] for name in _columns(table)) for each in flows for row in getattr(each, field)
        )
    return rows


async def _rows(store: FlowStore, flow_type: str, flow_id: str) -> FlowRows:
    history = await store.read(flow_type, flow_id)
    try:
        return rows_of(await store.fold(flow_type, flow_id, history), history)
    except HandrailError as error:
        last = history.everything()[-1]
        return unfolded_rows(flow_type, flow_id, sequence=last.sequence, time=last.time, why=error.text)


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.c]
