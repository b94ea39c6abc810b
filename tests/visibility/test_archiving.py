"""The archive holds what FLOW held, message by message, whatever happens while it is written."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.visibility.archive.errors import OtherStream
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verify import verify
from handrail.visibility.follow.archiver import Archiver, nanoseconds
from handrail.visibility.follow.follower import Follower
from tests.support.archived import EPOCH, archived, mark, stored
from tests.support.flows import enriched, notified, start, template
from tests.support.followed import covered, expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.processes import visibility_process
from tests.support.recorded_refunds import record, refund_template
from tests.support.waiting import until


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


async def test_the_archive_holds_what_the_stream_holds(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(refund_template())
    messages = await record(bus, 50, seed=1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= messages)
            messages += await record(bus, 20, seed=2, at_once=5)
            await until(lambda: mark(folder) >= messages)
            await until_covered(bus, engine)
    assert archived(folder) == await stored(bus)
    assert list(verify(folder, at_least=messages)) == []
    assert found(engine) == await expected(bus, mesh.store)


async def test_what_the_stream_lacks_is_listed_as_absent(folder: Folder) -> None:
    messages = [RawMessage("flow.x", b"body", sequence, EPOCH) for sequence in (4, 5, 9)]
    with LockedFolder(folder.path) as locked:
        archiver = await Archiver.open(locked, FLOW, "2026-11-28T05:10:00Z", age=timedelta())
        await archiver.take(messages)
        await archiver.take([*messages, RawMessage("flow.x", b"body", 12, EPOCH)])  # what it has is passed over
        assert (archiver.covered, archiver.mark) == (12, 0)
        await archiver.seal_if_due()
        assert archiver.mark == 12
    assert [each.sequence for each in archived(folder)] == [4, 5, 9, 12]
    assert list(verify(folder, at_least=12)) == []


async def test_a_killed_process_leaves_an_archive_that_goes_on(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path, folder: Folder
) -> None:
    await mesh.put(refund_template())
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    messages = 0
    for number in range(3):
        messages += await record(bus, 30, seed=number)
        with visibility_process(nats_server, f"sqlite:///{engine.url.database}", tmp_path / "log", archive=folder.path):
            await until(lambda last=messages: covered(engine) >= last)  # type: ignore[misc]
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= messages)
    assert archived(folder) == await stored(bus)
    assert list(verify(folder, at_least=messages)) == []


async def test_the_archive_of_another_stream_is_not_gone_on_with(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await publish(bus, start())
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
        for stream in (FLOW, "TEMPLATE"):
            await bus.request_json(f"$JS.API.STREAM.DELETE.{stream}")
        await ensure_streams(bus)
        await ensure_reading(bus, VISIBILITY, [EVERYTHING])
        with pytest.raises(OtherStream, match="give each stream a folder of its own"):
            await Follower(bus, engine, locked).run(asyncio.Event())
    assert len(archived(folder)) == 1


async def test_an_archive_is_verified_and_shown(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    await mesh.put(template())
    last = await publish(bus, start(), enriched(), notified())
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
    assert main(["archive", "verify", str(folder.path.parent)]) == 4
    assert "holds no segment" in capsys.readouterr().err
    assert main(["archive", "verify", str(folder.path)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert main(["archive", "show", str(folder.path)]) == 0
    assert "SHA-256" in capsys.readouterr().out
    assert main(["archive", "verify", str(folder.path), "--at-least", "99"]) == 1
    assert "99 was sealed" in capsys.readouterr().out
    path = folder.file(folder.firsts()[0])
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert main(["archive", "verify", str(folder.path), "--output", "json"]) == 1
    assert path.name in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-28T05:10:00.123456789Z", 1_795_842_600_123_456_789),
    ],
)
def test_a_time_of_the_broker_keeps_its_nanoseconds(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize("text", ["", "now", "2026-11-28T05:10:00+01:00"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time in UTC"):
        nanoseconds(text)


async def test_a_disk_that_is_full_does_not_stop_the_index(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    await mesh.put(template())
    with LockedFolder(folder.path) as locked:
        in_the_way = f"{folder.file(1)}.part"
        os.mkdir(in_the_way)
        async with following(bus, engine, locked):
            await publish(bus, start())
            await until(lambda: "the index goes on without it" in caplog.text)
            last = await publish(bus, enriched(), notified())
            await until_covered(bus, engine)
            assert mark(folder) == 0
            os.rmdir(in_the_way)
            await until(lambda: mark(folder) >= last)
    assert archived(folder) == await stored(bus)
