"""Neither a loss on the way, nor a FLOW that was restored, nor a database that is away leaves a hole in the archive."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.permissions import VISIBILITY, reader_durable
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.mesh.streams.reading import read
from handrail.visibility.archive.errors import OtherStream
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verify import verify
from handrail.visibility.follow.follower import Follower
from handrail.visibility.index.database import open_engine
from tests.support.archived import archived, mark, stored
from tests.support.flows import start, template
from tests.support.followed import covered, expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually, until


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


async def begin(bus: NatsBus, *numbers: int, flow_type: str = "refund") -> int:
    """Begins flows with these ids; returns the last sequence."""
    return await publish(bus, *(start(f"{number:032x}", flow_type=flow_type) for number in numbers))


async def has_asked(bus: NatsBus) -> bool:
    """Whether a process waits for the durable's next message."""
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{reader_durable(VISIBILITY)}")
    return bool(info["num_waiting"])


def restore(server: NatsServer, backup: Path) -> None:
    """Puts the files of a server back."""
    server.stop()
    shutil.rmtree(server.folder / server.name)
    shutil.copytree(backup, server.folder / server.name)
    server.start()


def back_up(server: NatsServer, backup: Path) -> None:
    """Copies the files of a server."""
    server.stop()
    shutil.copytree(server.folder / server.name, backup)
    server.start()


async def test_p2_what_another_process_skips_is_not_taken_for_absent(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    """The numbers of the deliveries show nothing: it moved the durable before the first one."""
    await mesh.put(template())
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await eventually(lambda: has_asked(bus))
            await bus.request_json(f"$JS.API.CONSUMER.RESET.{FLOW}.{reader_durable(VISIBILITY)}", {"seq": 4})
            last = await begin(bus, *range(1, 7))
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
    assert archived(folder) == await stored(bus)
    assert len(archived(folder)) == 6
    assert found(engine) == await expected(bus, mesh.store)


async def test_what_another_process_delivers_again_is_passed_over(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await begin(bus, 1, 2, 3)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until_covered(bus, engine)
        async with following(bus, engine, locked):
            await eventually(lambda: has_asked(bus))
            await bus.request_json(f"$JS.API.CONSUMER.RESET.{FLOW}.{reader_durable(VISIBILITY)}", {"seq": 2})
            last = await begin(bus, 4)
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
    assert archived(folder) == await stored(bus)
    assert found(engine) == await expected(bus, mesh.store)


async def test_what_was_purged_is_passed_over(mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder) -> None:
    await mesh.put(template())
    config = (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["config"]
    await bus.request_json(f"$JS.API.STREAM.DELETE.{FLOW}")
    await bus.request_json(f"$JS.API.STREAM.CREATE.{FLOW}", {**config, "deny_purge": False})
    await begin(bus, *range(1, 7))
    for request in ({"seq": 3}, {"filter": start(f"{4:032x}").address.subject}):
        await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", request)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= 6)
            await until_covered(bus, engine)
    assert [each.sequence for each in archived(folder)] == [3, 5, 6]
    assert list(verify(folder, at_least=6)) == []


async def test_p2_nothing_is_followed_through_a_durable_that_delivers_less(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    for flow_type in ("refund", "loan"):
        await mesh.put(template(flow_type))
    await ensure_reading(bus, VISIBILITY, ["flow.refund.>"])
    await begin(bus, 1, 2, flow_type="loan")
    last = await begin(bus, 3)
    stopping = asyncio.Event()
    with LockedFolder(folder.path) as locked:
        work = asyncio.create_task(Follower(bus, engine, locked, age=timedelta()).run(stopping))
        await until(lambda: "does not deliver exactly flow.>: run handrail admin setup" in caplog.text)
        await ensure_reading(bus, VISIBILITY, [EVERYTHING])
        await until(lambda: mark(folder) >= last)
        stopping.set()
        await work
    assert archived(folder) == await stored(bus)
    assert found(engine) == await expected(bus, mesh.store)


@pytest.mark.parametrize(
    "fields, said", [({"ack_policy": "explicit"}, "needs acknowledgements"), ({"headers_only": True}, "bodies")]
)
async def test_a_durable_of_another_kind_is_refused(
    mesh: Mesh, bus: NatsBus, engine: Engine, caplog: pytest.LogCaptureFixture, fields: dict[str, object], said: str
) -> None:
    durable = reader_durable(VISIBILITY)
    config = {"durable_name": durable, "ack_policy": "none", "filter_subjects": [EVERYTHING], **fields}
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{durable}", {"stream_name": FLOW, "config": config})
    await begin(bus, 1)
    stopping = asyncio.Event()
    work = asyncio.create_task(Follower(bus, engine).run(stopping))
    await until(lambda: said in caplog.text)
    stopping.set()
    await work
    assert covered(engine) == 0


async def test_p2_an_archive_is_not_gone_on_with_if_flow_was_restored_and_has_grown(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    await mesh.put(template())
    await begin(bus, 1, 2)
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    back_up(nats_server, tmp_path / "backup")
    last = await begin(bus, 3, 4)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
        before = archived(folder)
        restore(nats_server, tmp_path / "backup")
        await begin(bus, *range(11, 16))
        with pytest.raises(OtherStream, match="restored from a backup"):
            await Follower(bus, engine, locked).run(asyncio.Event())
    assert archived(folder) == before


async def test_p4_an_index_begins_anew_if_flow_was_restored_and_has_grown(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path
) -> None:
    await mesh.put(template())
    await begin(bus, 1, 2)
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    back_up(nats_server, tmp_path / "backup")
    await begin(bus, 3, 4)
    async with following(bus, engine):
        await until_covered(bus, engine)
    restore(nats_server, tmp_path / "backup")
    await begin(bus, *range(11, 16))
    async with following(bus, engine):
        assert await eventually(lambda: is_right(mesh, bus, engine))


async def test_p4_a_flow_that_is_restored_meanwhile_is_noticed(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path
) -> None:
    await mesh.put(template())
    await begin(bus, 1, 2)
    async with following(bus, engine):
        await until_covered(bus, engine)
        back_up(nats_server, tmp_path / "backup")
        await begin(bus, 3, 4)
        await until_covered(bus, engine)
        restore(nats_server, tmp_path / "backup")
        await begin(bus, *range(11, 16))
        assert await eventually(lambda: is_right(mesh, bus, engine))


async def is_right(mesh: Mesh, bus: NatsBus, engine: Engine) -> bool:
    return found(engine) == await expected(bus, mesh.store)


async def test_the_archive_goes_on_while_the_database_is_away(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    file, away = tmp_path / "index.db", tmp_path / "away.db"
    await mesh.put(template())
    await begin(bus, 1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until_covered(bus, engine)
            engine.dispose()
            file.rename(away)
            file.mkdir()
            last = await begin(bus, 2, 3)
            await until(lambda: mark(folder) >= last)
            assert covered(engine) == 0
            last = await begin(bus, 4, 5)
            await until(lambda: mark(folder) >= last)
            file.rmdir()
            away.rename(file)
            await until_covered(bus, engine)
    assert archived(folder) == await stored(bus)
    assert found(engine) == await expected(bus, mesh.store)


async def test_the_archive_goes_on_without_a_database(mesh: Mesh, bus: NatsBus, folder: Folder) -> None:
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    engine, stopping = open_engine("postgresql://nobody:none@127.0.0.1:1/none"), asyncio.Event()
    with LockedFolder(folder.path) as locked:
        work = asyncio.create_task(Follower(bus, engine, locked, age=timedelta()).run(stopping))
        last = await begin(bus, 1, 2)
        await until(lambda: mark(folder) >= last)
        stopping.set()
        await work
    assert archived(folder) == await stored(bus)


async def test_two_processes_of_one_name_are_told(bus: NatsBus, caplog: pytest.LogCaptureFixture) -> None:
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    caplog.set_level(logging.WARNING)
    async with reading(bus), reading(bus):
        number = 0
        async with asyncio.timeout(90):
            while "if another process reads under this name" not in caplog.text:
                number += 1
                await begin(bus, number)
    assert reader_durable(VISIBILITY) in caplog.text


@asynccontextmanager
async def reading(bus: NatsBus) -> AsyncIterator[None]:
    async def go_on() -> None:
        async for _ in read(bus, VISIBILITY):
            pass

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
