"""The index keeps what left FLOW, and has it again if it is computed anew from the archive and FLOW."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from handrail.mesh.bus import NatsBus
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.index import schema
from handrail.visibility.index.database import open_engine
from tests.support.archived import archived, mark, stored
from tests.support.flows import enriched, start, template
from tests.support.followed import Rows, covered, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import record, refund_template
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention, shelf
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    do_not_wait(monkeypatch)


async def test_finished_flows_leave_and_open_ones_stay(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2, 3)
    last = await publish(bus, start(flow_id(4)), enriched(flow_id(4)))
    before = await stored(bus)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            rows = found(engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=3)
            assert await in_flow(bus) == {flow_id(4)}
    assert archived(folder) == before
    with engine.connect() as connection:
        verdicts = {row.flow_id: row.verdict for row in connection.execute(select(schema.flow))}
    assert {each for each, number in verdicts.items() if number is None} == {flow_id(4)}
    assert without_verdicts(found(engine)) == without_verdicts(rows)


def without_verdicts(rows: Rows) -> Rows:
    """All rows, as if no flow had left."""
    return {**rows, "flow": [row[:-1] for row in rows["flow"]]}


async def test_an_index_from_nothing_equals_the_one_that_saw_everything(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    await mesh.put(refund_template(), template("loan"))
    last = await record(bus, 60, seed=1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            with engine.connect() as connection:
                ended = len(connection.execute(select(schema.flow).where(schema.flow.c.ended.is_not(None))).all())
            await purge_all(retention(bus, engine, locked), flows=ended)
            last = await record(bus, 20, seed=2)
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
        another = open_engine(f"sqlite:///{tmp_path}/another.db")
        async with following(bus, another, locked):
            await until_covered(bus, another)
            assert await shelf(bus, another, locked).catch_up() == ended
            await until_covered(bus, another)
        assert found(another) == found(engine)
        another.dispose()


async def test_an_index_from_nothing_covers_flow_though_all_of_it_was_purged(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2)
    another = open_engine(f"sqlite:///{tmp_path}/another.db")
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=2)
        async with following(bus, another, locked):
            await until_covered(bus, another)
            await shelf(bus, another, locked).catch_up()
            last = await finish(bus, 3)
            await until(lambda: covered(another) >= last)
    with another.connect() as connection:
        assert len(connection.execute(select(schema.flow)).all()) == 3
    another.dispose()
