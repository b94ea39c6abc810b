"""An erased flow is nowhere but for its verdict, and AUDIT says who erased it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import AUDIT, FLOW, purged, start_flow
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.v1.audit_pb2 import FlowErased
from handrail.v1.decision_pb2 import FlowHalted
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import VerdictLog, numbered, verify_verdicts
from handrail.visibility.archive.verify import verify
from handrail.visibility.index import schema
from handrail.visibility.index.database import open_engine
from handrail.visibility.retention.erasure import Erasure
from tests.support.archived import archived, mark
from tests.support.flows import decision, enriched, notified, received, start, template
from tests.support.followed import following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention, shelf
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    do_not_wait(monkeypatch)
    monkeypatch.setattr("handrail.visibility.retention.erasure.LEAST", timedelta())
    monkeypatch.setattr("handrail.visibility.retention.erasure.WAIT", timedelta())


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


def searched() -> Template:
    """A template by whose attribute flows are found."""
    made = template()
    made.proto.search.append("chargeback_id")
    return Template.compile(made.proto, made.contracts)


async def erase(bus: NatsBus, folder: Folder, engine: Engine, flow: str, *, steps: int = 99) -> list[str]:
    """Erases a flow; ends after some steps, as a kill does."""
    said = []
    with LockedFolder(folder.path) as locked:
        async for text in Erasure(bus, locked, engine, by="olga").erase("refund", flow):
            said.append(text)
            if len(said) == steps:
                break
    return said


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize("killed_after", [None, 1, 2, 3, 4, 5])
async def test_an_erased_flow_leaves_its_verdict_alone(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, is_purged: bool, killed_after: int | None, tmp_path: Path
) -> None:
    await mesh.put(searched())
    await finish(bus, 1)
    await finish(bus, 2)
    last = await publish(bus, start(flow_id(3)))
    quarantine = Quarantine(bus, mesh.catalog, reporter="coordinator")
    for each in (1, 2):
        entry = enriched(flow_id(each))
        await quarantine.put(
            subject=entry.address.subject,
            body=entry.body,
            sequence=1,
            reason=ErrorReason.ERROR_REASON_MALFORMED,
            detail="for the test",
        )
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            if is_purged:
                await purge_all(retention(bus, engine, locked), flows=2)
    whole = archived(folder)
    if killed_after is not None:
        await erase(bus, folder, engine, flow_id(1), steps=killed_after)
    said = await erase(bus, folder, engine, flow_id(1))
    assert said[-1] == "AUDIT has the record"

    kept = [each for each in whole if flow_id(1) not in each.subject]
    assert len(kept) == len(whole) - 3
    assert archived(folder) == kept
    assert [*verify(folder, at_least=last), *verify_verdicts(folder)] == []
    assert flow_id(1) not in await in_flow(bus)
    assert flow_id(1) not in str(await bus.request_json("$JS.API.STREAM.INFO.QUARANTINE_enrichment", everything()))
    assert flow_id(2) in str(await bus.request_json("$JS.API.STREAM.INFO.QUARANTINE_enrichment", everything()))
    [verdict] = [each for _, each in numbered(folder) if each.flow_id == flow_id(1)]
    assert (verdict.erased, verdict.summary["status"]) == (True, "COMPLETED")

    message = await bus.last(AUDIT, "audit.erasure.>")
    assert message is not None
    record = FlowErased.FromString(message.body)
    assert (record.flow_id, record.by, record.messages) == (flow_id(1), "olga", 3)
    assert all(each.replaced != each.digest for each in record.segments)

    another = open_engine(f"sqlite:///{tmp_path}/another.db")
    with LockedFolder(folder.path) as locked:
        for index in (engine, another):
            async with following(bus, index, locked):
                await until_covered(bus, index)
                await shelf(bus, index, locked).catch_up()
    assert found(another) == found(engine)
    with another.connect() as connection:
        named = connection.execute(select(schema.attribute.c.first_sequence)).scalars().all()
        row = connection.execute(select(schema.flow).where(schema.flow.c.flow_id == flow_id(1))).one()
    assert 1 not in named
    assert (row.status, row.requester, row.reason) == ("COMPLETED", "", "")
    another.dispose()


def everything() -> dict[str, str]:
    return {"subjects_filter": ">"}


async def follow(bus: NatsBus, engine: Engine, folder: Folder, last: int, *, purge: int = 0) -> None:
    """Archives and indexes everything up to a sequence, and purges some flows."""
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            if purge:
                await handle_all(bus)
                await purge_all(retention(bus, engine, locked), flows=purge)


async def test_a_flow_that_is_not_over_is_not_erased(mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder) -> None:
    await mesh.put(template())
    await follow(bus, engine, folder, await publish(bus, start(flow_id(1)), enriched(flow_id(1))))
    with pytest.raises(HandrailError, match="can't be erased yet: it is not over"):
        await erase(bus, folder, engine, flow_id(1))
    with pytest.raises(HandrailError, match="there is no refund flow"):
        await erase(bus, folder, engine, flow_id(2))
    assert await in_flow(bus) == {flow_id(1)}


async def test_p2_a_flow_that_goes_on_meanwhile_is_not_erased(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.put(template())
    await follow(bus, engine, folder, await finish(bus, 1))
    await handle_all(bus)
    record = purged.record

    async def recorded_and_gone_on(*given: Any) -> None:
        await record(*given)
        await publish(bus, decision(FlowHalted(reason="a person"), flow_id=flow_id(1)))

    monkeypatch.setattr(purged, "record", recorded_and_gone_on)
    with pytest.raises(HandrailError, match="can't be erased yet: something came to it meanwhile"):
        await erase(bus, folder, engine, flow_id(1))
    assert (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["messages"] == 4
    assert list(numbered(folder)) == []


async def test_p2_what_coordinators_have_not_handled_is_not_erased(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await follow(bus, engine, folder, await finish(bus, 1))
    with pytest.raises(HandrailError, match="can't be erased yet: its last message is not archived, or not handled"):
        await erase(bus, folder, engine, flow_id(1))
    assert await in_flow(bus) == {flow_id(1)}


async def test_what_came_late_is_erased_too_and_keeps_nobody_from_it(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await follow(bus, engine, folder, await finish(bus, 1), purge=1)
    late = await publish(bus, enriched(flow_id(1)))
    await follow(bus, engine, folder, late)
    with LockedFolder(folder.path) as locked:
        await retention(bus, engine, locked).round()
    begins = f"flow.refund.{flow_id(1)}.event.enrichment.{ids.start_id(flow_id(1))}.payments.v1.ChargebackEnriched"
    await bus.publish(begins, b"anything")
    await publish(bus, notified(flow_id(1)))
    assert sum(flow_id(1) in each.subject for each in archived(folder)) >= 4

    await erase(bus, folder, engine, flow_id(1))
    assert [each for each in archived(folder) if flow_id(1) in each.subject] == []
    assert await in_flow(bus) == set()
    [(_, verdict)] = numbered(folder)
    assert (verdict.erased, verdict.summary["status"]) == (True, "COMPLETED")
    await follow(bus, engine, folder, await publish(bus, start(flow_id(2))))

    await publish(bus, enriched(flow_id(1)))
    await erase(bus, folder, engine, flow_id(1))
    assert [each for each in archived(folder) if flow_id(1) in each.subject] == []
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{AUDIT}", {"subjects_filter": "audit.erasure.>"})
    assert len(info["state"]["subjects"]) == 2


async def test_an_archive_that_has_no_verdict_is_rid_of_a_purged_flow(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path
) -> None:
    await mesh.put(template())
    other_engine, other = open_engine(f"sqlite:///{tmp_path}/other.db"), Folder(tmp_path / "other")
    await follow(bus, other_engine, other, await publish(bus, start(flow_id(1)), enriched(flow_id(1))))
    await follow(bus, engine, folder, await publish(bus, notified(flow_id(1))), purge=1)
    await publish(bus, start(flow_id(2)))

    await erase(bus, other, other_engine, flow_id(1))
    assert [each for each in archived(other) if flow_id(1) in each.subject] == []
    [(_, verdict)] = numbered(other)
    assert verdict.erased
    await follow(bus, other_engine, other, await publish(bus, start(flow_id(3))))
    other_engine.dispose()


async def test_p2_a_withdrawn_verdict_keeps_no_words_of_an_erased_flow(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await follow(bus, engine, folder, await finish(bus, 1))
    await handle_all(bus)
    summary = {"flow_type": "refund", "flow_id": flow_id(1), "first_sequence": 1, "requester": "kim", "reason": "hers"}
    withdrawn = Verdict((1, 2), summary, {}, "1.0").as_withdrawn()
    with LockedFolder(folder.path) as locked:
        VerdictLog(locked).append([withdrawn])
    await erase(bus, folder, engine, flow_id(1))
    verdicts = [each for _, each in numbered(folder, withdrawn=True)]
    assert [(each.erased, each.summary["requester"], each.summary["reason"]) for each in verdicts] == 2 * [
        (True, "", "")
    ]


async def test_p2_an_erased_flow_keeps_no_business_key(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    key = "kim@example.com"
    await mesh.put(template())
    started = await start_flow.start(bus, template(), source="detection", data=pack(received()), key=key)
    await follow(bus, engine, folder, await publish(bus, enriched(started.flow_id), notified(started.flow_id)))
    await handle_all(bus)

    def keys() -> list[str]:
        with engine.connect() as connection:
            return list(connection.execute(select(schema.flow.c.key)).scalars())

    assert keys() == [key]
    assert any(key.encode() in each.body for each in archived(folder))
    await erase(bus, folder, engine, started.flow_id)
    assert keys() == [""]
    assert not any(key.encode() in each.body for each in archived(folder))
    [(_, verdict)] = numbered(folder)
    assert verdict.summary["key"] == ""


async def test_nothing_is_erased_while_the_database_has_no_index(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    await finish(bus, 1)
    await handle_all(bus)
    folder.path.mkdir()
    with pytest.raises(HandrailError, match="has no index of this release"):
        await erase(bus, folder, engine, flow_id(1))
    assert await in_flow(bus) == {flow_id(1)}


async def test_the_command_tells_each_step(
    nats_server: NatsServer,
    mesh: Mesh,
    bus: NatsBus,
    engine: Engine,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await mesh.put(template())
    last = await publish(bus, start(flow_id(1)), enriched(flow_id(1)), notified(flow_id(1)))
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
        monkeypatch.setenv("HANDRAIL_DATABASE", f"sqlite:///{engine.url.database}")
        command = ["archive", "erase", str(folder.path), "refund", flow_id(1), "--nats", nats_server.url]
        code = await asyncio.to_thread(main, command)
        assert (code, "is in use by another process" in capsys.readouterr().err) == (1, True)
    assert await asyncio.to_thread(main, command) == 0
    assert "AUDIT has the record" in capsys.readouterr().out
    assert (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["messages"] == 0
