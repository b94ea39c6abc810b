"""The index keeps what left FLOW, and has it again if it is computed anew from the archive and FLOW."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from sqlalchemy import Engine, select

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.v1.flow_service_pb2 import ListFlowsRequest, ListFlowsResponse
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.index import schema
from handrail.visibility.index.database import begin_anew, open_engine, prepare
from handrail.visibility.retention.process import NOTHING_LEAVES, retain
from handrail.visibility.retention.shelf import Shelf
from handrail.visibility.retention.shelf_mark import ShelfMark
from tests.support.api import Api
from tests.support.archived import archived, mark, stored
from tests.support.flows import enriched, start, template
from tests.support.followed import Rows, covered, following, found, until_covered
from tests.support.indexed import ask, asking, secret_file, serving
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import record, refund_template
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention, shelf
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("patient")


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


async def test_an_index_begun_anew_is_not_answered_from_before_it_has_the_archived_flows(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2, 3)
    last = await publish(bus, start(flow_id(4)), enriched(flow_id(4)))
    secret, shelf_mark = secret_file(tmp_path), ShelfMark()
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=3)
        taking = Shelf(locked, engine, FlowStore(bus, Catalog(bus)), shelf_mark)
        async with (
            serving(bus, engine, secret, archive=locked, mark=shelf_mark) as port,
            asking(bus, tmp_path, port=port, secret=secret) as api,
        ):
            assert await listed(api) == "archived flows are still being taken into the index"
            await taking.catch_up()
            assert await listed(api) == 4
            begin_anew(engine, "another stream")
            assert await listed(api) == "archived flows are still being taken into the index"
            await taking.catch_up()
            assert await listed(api) == 3


async def listed(api: Api) -> int | str:
    """The number of flows in a list, or why there is none."""
    try:
        answer = await ask(api, "FlowService/ListFlows", ListFlowsRequest(), ListFlowsResponse)
    except grpc.aio.AioRpcError as error:
        found = re.search("archived flows are [^,]*", error.details() or "")
        return found[0] if found else repr(error)
    return len(answer.flows)


async def test_visibility_takes_archived_flows_as_soon_as_there_is_an_index(
    mesh: Mesh,
    bus: NatsBus,
    engine: Engine,
    folder: Folder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handrail.visibility.retention.process._EVERY", timedelta(hours=1))
    await mesh.put(template())
    last = await finish(bus, 1)
    stopping, shelf_mark = asyncio.Event(), ShelfMark()
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=1)
        another = open_engine(f"sqlite:///{tmp_path}/another.db")
        retaining = asyncio.create_task(retain(bus, another, locked, NOTHING_LEAVES, stopping, shelf_mark))
        await until(lambda: "archived flows are missing" in caplog.text)  # it has looked, and found no index
        prepare(another, "now")
        await until(lambda: shelf_mark.has_all(1))
        stopping.set()
        await retaining
        assert len(found(another)["flow"]) == 1
        another.dispose()


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
