"""The index equals the folds of the stream, whatever happens while it is written."""

import asyncio
import logging
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from handrail.mesh.bus import NatsBus
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW, TEMPLATE, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.index import writer
from tests.support.archived import mark
from tests.support.flows import enriched, notified, start, template
from tests.support.followed import covered, expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.processes import visibility_process
from tests.support.recorded_refunds import record, refund_template
from tests.support.waiting import eventually, until

FLOWS = 300


async def recreate_streams(bus: NatsBus) -> None:
    for stream in (FLOW, TEMPLATE):
        await bus.request_json(f"$JS.API.STREAM.DELETE.{stream}")
    await ensure_streams(bus)
    await Mesh(bus, Catalog(bus)).put(template())


async def test_the_index_equals_the_folds_of_the_stream(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(refund_template())
    await record(bus, FLOWS, seed=1)
    async with following(bus, engine):
        await until_covered(bus, engine)
        await record(bus, FLOWS, seed=2, at_once=10)  # while it follows
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 2 * FLOWS
    assert rows["approval"]


async def test_a_follower_goes_on_where_the_last_one_stopped(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(template())
    await publish(bus, start())
    async with following(bus, engine):
        await until_covered(bus, engine)
    await publish(bus, enriched())  # the next follower does not have this flow folded
    async with following(bus, engine):
        await until_covered(bus, engine)
        await publish(bus, notified())
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 1


async def test_messages_that_do_not_count_are_no_trouble(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(template())
    unreadable, early, unknown = (f"{n:032x}" for n in (1, 2, 3))
    async with following(bus, engine):
        await publish(bus, start(unreadable))
        await bus.publish(enriched(unreadable).address.subject, b"\xff not a message")
        await publish(bus, enriched(early), start(early))  # the outcome comes before what it answers
        await publish(bus, start(unknown, flow_type="loan"))  # no such template is stored
        await bus.publish("flow.refund.x", b"")  # no subject of a flow
        await publish(bus, start(), enriched(), notified())
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert [row[:2] for row in rows["unfolded"]] == [("loan", unknown)]
    assert "no template loan" in str(rows["unfolded"])


@pytest.mark.parametrize(
    "name, flow_id", [("refund", ">"), ("refund", "*"), ("*", "*"), ("refund", "\u00ff"), ("*", ">")]
)
async def test_wildcards_in_a_subject_name_no_flow(
    mesh: Mesh, bus: NatsBus, engine: Engine, name: str, flow_id: str
) -> None:
    await mesh.put(template())
    async with following(bus, engine):
        await publish(bus, start(), enriched())
        await until_covered(bus, engine)
        tokens = start().address.subject.split(".", 3)[3]
        bus.connection.send(f"flow.{name}.{flow_id}.{tokens}", start().body)
        await publish(bus, notified())
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 1


async def test_a_malformed_message_before_the_start_makes_no_second_row(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    await mesh.put(template())
    async with following(bus, engine):
        await bus.publish(enriched().address.subject, b"\xff not a message")
        await until_covered(bus, engine)
        await publish(bus, start())
        await until_covered(bus, engine)
    async with following(bus, engine):  # a new process reads the flow again
        await bus.publish(notified().address.subject, b"\xff not a message either")
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 1
    assert not rows["unfolded"]


async def test_a_flow_that_could_not_be_folded_is_found_once_its_template_is_there(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    async with following(bus, engine):
        await publish(bus, start())
        await until_covered(bus, engine)
        await mesh.put(template())
        await publish(bus, start(f"{2:032x}"), start(f"{3:032x}"))  # of other flows
        await until_covered(bus, engine)
        await publish(bus, start(f"{4:032x}"))
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 4


async def flow_ids(engine: Engine) -> list[object]:
    return [row[2] for row in found(engine)["flow"]]


async def test_a_recreated_stream_is_followed_from_its_beginning(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(template())
    await publish(bus, start(), enriched(), notified())
    async with following(bus, engine):
        await until_covered(bus, engine)
    await recreate_streams(bus)
    others = [f"{n:032x}" for n in range(1, 6)]  # more messages than the former stream had
    await publish(bus, *map(start, others))
    async with following(bus, engine):
        assert await eventually(lambda: flow_ids(engine), lambda ids: ids == others)


async def test_a_stream_that_is_recreated_meanwhile_is_noticed(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(template())
    await publish(bus, start(), enriched(), notified())
    other = f"{7:032x}"
    async with following(bus, engine):
        await until_covered(bus, engine)
        await recreate_streams(bus)
        await ensure_reading(bus, VISIBILITY, [EVERYTHING])
        await publish(bus, start(other))
        assert await eventually(lambda: flow_ids(engine), lambda ids: ids == [other])


async def test_a_broker_that_goes_and_comes_is_waited_for(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    await mesh.put(template())
    async with following(bus, engine):
        await publish(bus, start())
        await until_covered(bus, engine)
        nats_server.kill()
        nats_server.start()
        await publish(bus, enriched(), notified())
        await until_covered(bus, engine)
    assert found(engine) == await expected(bus, mesh.store)


async def test_a_database_that_fails_stores_nothing_of_a_batch_and_is_tried_again(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    await mesh.put(template())
    await publish(bus, start())
    async with following(bus, engine):
        await until_covered(bus, engine)
        before = covered(engine)
        with engine.begin() as connection:  # what comes can't be stored
            connection.execute(text("ALTER TABLE owed RENAME TO away"))
        await publish(bus, enriched(), notified())
        await asyncio.sleep(0)
        assert covered(engine) == before
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO owed"))
        await until_covered(bus, engine)
    assert found(engine) == await expected(bus, mesh.store)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_process_that_is_killed_again_and_again_loses_and_doubles_nothing(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, address: str, tmp_path: Path
) -> None:
    await mesh.put(refund_template())
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    await record(bus, 2 * FLOWS, seed=3)
    for _ in range(4):
        before = covered(engine)
        with visibility_process(nats_server, address, tmp_path / "log"):
            await until(lambda before=before: covered(engine) > before)  # type: ignore[misc]
            await record(bus, 20, seed=100 + before, at_once=5)
    with visibility_process(nats_server, address, tmp_path / "log") as last:
        await until_covered(bus, engine)
        last.terminate()
        assert last.wait(timeout=30) == 0, (tmp_path / "log").read_text()
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)


async def test_p6_what_can_not_be_folded_takes_bounded_room_and_hides_nothing_else(
    mesh: Mesh, bus: NatsBus, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "MOST_UNFOLDED", 3)
    await mesh.put(template())
    strays = [f"{n:032x}" for n in range(1, 8)]
    async with following(bus, engine):
        await publish(bus, *map(enriched, strays))  # none of these flows has begun
        await until_covered(bus, engine)
        assert len(found(engine)["unfolded"]) == 3 + len([writer.OTHERS])
        await until(lambda: "the index does not list further ones" in caplog.text)
    async with following(bus, engine):  # it knows nothing of the others
        await publish(bus, start(), *map(start, strays), enriched())
        await until_covered(bus, engine)
    rows = dict(found(engine))
    assert [row[:2] for row in rows.pop("unfolded")] == [writer.OTHERS]
    wanted = dict(await expected(bus, mesh.store))
    assert not wanted.pop("unfolded")
    assert rows == wanted
    assert len(rows["flow"]) == len(strays) + 1


REFUSALS = {
    "sqlite": ["CREATE TRIGGER refusal BEFORE UPDATE ON position BEGIN SELECT RAISE(FAIL, 'no room'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$",
        "CREATE TRIGGER refusal BEFORE UPDATE ON position FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}


async def test_a_database_that_only_reads_is_waited_for_while_the_archive_goes_on(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await mesh.put(template())
    await publish(bus, start())
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until_covered(bus, engine)
            begun = caplog.text.count("the index covers")
            with engine.begin() as connection:
                for statement in REFUSALS[engine.dialect.name]:
                    connection.execute(text(statement))
            last = await publish(bus, enriched(), notified())
            await until(lambda: mark(folder) >= last)
            await until(lambda: re.search("no room.*; trying again", caplog.text))
            assert caplog.text.count("the index covers") == begun  # nothing was begun anew
            with engine.begin() as connection:
                on = " ON position" if engine.dialect.name == "postgresql" else ""
                connection.execute(text(f"DROP TRIGGER refusal{on}"))
            await until_covered(bus, engine)
    assert found(engine) == await expected(bus, mesh.store)
