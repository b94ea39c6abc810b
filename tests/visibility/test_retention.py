"""Finished flows leave FLOW, are in the archive, and stay in the index; everything else stays in FLOW."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import AUDIT, FLOW, ensure_streams, quarantine_stream
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.v1.audit_pb2 import SegmentArchived
from handrail.v1.decision_pb2 import FlowHalted
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from handrail.visibility.archive.errors import Damaged
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.reader import Reader
from handrail.visibility.index.candidates import Candidate
from handrail.visibility.index.database import open_engine
from handrail.visibility.retention.audit import Audit
from handrail.visibility.retention.departure import Departures
from handrail.visibility.retention.gate import Handled
from tests.support.accounts import connect, guarded_server
from tests.support.archived import mark
from tests.support.flows import decision, enriched, start, template
from tests.support.followed import following, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention
from tests.support.waiting import eventually, until


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    do_not_wait(monkeypatch)


async def test_nothing_leaves_before_the_coordinators_have_handled_it(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            work = retention(bus, engine, locked)
            assert [await work.round(), await work.round()] == [0, 0]
            assert await in_flow(bus) == {flow_id(1), flow_id(2)}
            await handle_all(bus)
            await purge_all(work, flows=2)


async def test_what_changes_after_its_announcement_stays(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            store = FlowStore(bus, mesh.catalog)
            departures = Departures(bus, store, Reader(folder))
            gate = Handled(last, datetime.now(UTC), purgeable=True)
            some = [Candidate(gate.now, 0, flow_id(each)) for each in (1, 2)]
            announced = await departures.announce("refund", some, age=timedelta(), gate=gate)
            assert [each.flow_id for each in announced] == [flow_id(1), flow_id(2)]
            await publish(bus, decision(FlowHalted(reason="a person asked"), flow_id=flow_id(1)))
            assert await departures.unchanged(announced) == announced[1:]
            for each, look in zip(announced, await departures.look(announced), strict=True):
                await departures.purge(each, look.judged)  # it takes what was judged, and nothing else
            assert await in_flow(bus) == {flow_id(1)}


async def test_what_comes_after_a_flow_left_is_put_into_quarantine(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            work = retention(bus, engine, locked)
            await purge_all(work, flows=1)
            late = await publish(bus, enriched(flow_id(1)))
            await handle_all(bus)
            again = retention(bus, engine, locked)
            await until(lambda: mark(folder) >= late)
            await again.round()
            await again.round()
            await until_covered(bus, engine)
            assert await in_flow(bus) == set()
    message = await bus.last(quarantine_stream("enrichment"), f"quarantine.refund.{flow_id(1)}.>")
    assert message is not None
    reported = Quarantined.FromString(message.body)
    assert (reported.stream_sequence, reported.reason) == (late, ErrorReason.ERROR_REASON_FLOW_ARCHIVED)


async def test_each_segment_is_in_audit_before_anything_in_it_is_purged(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            last = await finish(bus, 3)
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=3)
        page = await bus.read_forward(AUDIT, "audit.segment.>", from_sequence=1, limit=100)
        recorded = [SegmentArchived.FromString(each.body) for each in page.messages]
        assert (recorded[0].first, recorded[-1].last) == (1, mark(folder))
        assert sum(each.count for each in recorded) == last
        folder.file(recorded[-1].first).rename(folder.path / "away")
        with pytest.raises(Damaged, match="they are gone"):
            await Audit(bus, folder).record()


async def test_a_segment_without_a_message_that_no_archive_has_keeps_all_behind_it(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await finish(bus, 1)
    await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"seq": 2})
    last = await finish(bus, 2)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
        audit = Audit(bus, folder)
        assert await audit.record() == 0
        assert "sequence 1 was never archived" in audit.problem
        (folder.path / "accepted-gaps").write_text("2 9\n")
        assert await Audit(bus, folder).record() == 0
        (folder.path / "accepted-gaps").write_text("1 1\n")
        assert await Audit(bus, folder).record() == last
        (folder.path / "accepted-gaps").write_text("all\n")
        with pytest.raises(Damaged, match="accepted-gaps"):
            await Audit(bus, folder).record()


async def test_a_flow_that_can_not_be_purged_keeps_everything_and_says_so(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    await mesh.put(template())
    config = (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["config"]
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{FLOW}", {**config, "deny_purge": True})
    last = await finish(bus, 1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            assert await retention(bus, engine, locked).round() == 0
    assert "`handrail admin enable-retention`" in caplog.text
    assert await in_flow(bus) == {flow_id(1)}


async def test_known_purged_sequences_cost_no_question_to_the_leader(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.put(template())
    last = 0
    for number in range(1, 11):  # each second flow stays
        last = await finish(bus, number) if number % 2 else await publish(bus, start(flow_id(number)))
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=5)
        asked: list[int] = []
        monkeypatch.setattr("handrail.mesh.streams.reading._skipped", partial(note, asked))
        another = open_engine(f"sqlite:///{tmp_path}/another.db")
        async with following(bus, another, locked):
            await until_covered(bus, another)
        another.dispose()
    assert asked == []


async def note(asked: list[int], bus: NatsBus, first: int, delivered: int) -> bool:
    """Notes a question to the leader, and says what it would."""
    asked.append(first)
    return False


async def test_the_user_retention_may_do_all_of_it(tmp_path: Path, engine: Engine, folder: Folder) -> None:
    made = template()
    with guarded_server(tmp_path / "guarded", made.proto) as server:
        async with await connect(server, "admin") as admin, await connect(server, "retention") as user:
            await ensure_streams(admin)
            catalog = Catalog(admin)
            mesh = Mesh(admin, catalog)
            await mesh.put(made)
            last = await finish(admin, 1, 2)
            with LockedFolder(folder.path) as locked:
                async with following(admin, engine, locked):
                    await until(lambda: mark(folder) >= last)
                    await until_covered(admin, engine)
                    await handle_all(admin)
                    await purge_all(retention(user, engine, locked), flows=2)
                    late = await publish(admin, enriched(flow_id(1)))
                    await handle_all(admin)
                    await until(lambda: mark(folder) >= late)
                    again, stopping = retention(user, engine, locked), asyncio.Event()
                    run = asyncio.create_task(again.run(stopping))
                    await eventually(lambda: in_flow(admin), lambda left: left == set())
                    stopping.set()
                    await run
                    assert await in_flow(admin) == set()
