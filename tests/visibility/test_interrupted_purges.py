"""Between a verdict and its purge anything may come: a crash, no answer, a message that goes on with the flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Engine, select

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.fold import is_final
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.decision_pb2 import FlowClosed, FlowHalted, FlowStatus, HaltMode
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.template_pb2 import EFFECT_UNDOABLE
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import numbered
from handrail.visibility.follow.purged_sequences import PurgedSequences
from handrail.visibility.index import schema
from handrail.visibility.retention.audit import Audit
from handrail.visibility.retention.departure import Departures, Look
from handrail.visibility.retention.retention import Retention
from tests.support.archived import mark
from tests.support.flows import decision, enriched, event, start, template
from tests.support.followed import expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention
from tests.support.waiting import until

FLOW_ID = flow_id(1)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    do_not_wait(monkeypatch)


@asynccontextmanager
async def followed(bus: NatsBus, engine: Engine, folder: Folder, last: int) -> AsyncIterator[LockedFolder]:
    """An archive and an index that have everything up to a sequence, which is handled, too."""
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            yield locked


async def purge_without_answer(work: Retention, monkeypatch: pytest.MonkeyPatch, *, flows: int) -> None:
    """Stores verdicts; the first purge gets no answer."""
    with monkeypatch.context() as broken:
        broken.setattr(Departures, "purge", fails)
        with pytest.raises(BrokerUnavailable):
            await purge_all(work, flows=flows)


async def fails(*_: object) -> None:
    """Stands in for a request that gets no answer."""
    raise BrokerUnavailable("no answer")


@pytest.mark.parametrize("restarted", [True, False], ids=["after a restart", "in the same process"])
async def test_p2_a_flow_that_a_late_effect_opened_again_is_not_purged(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    await mesh.put(undoable())
    last = await cancel(bus)
    async with followed(bus, engine, folder, last) as locked:
        work = retention(bus, engine, locked)
        await purge_without_answer(work, monkeypatch, flows=1)
        await publish(bus, enriched(FLOW_ID))
        store = FlowStore(bus, mesh.catalog)
        assert not is_final(await store.load_newest("refund", FLOW_ID))
        if restarted:
            work = retention(bus, engine, locked)
        for _ in range(3):
            assert await work.round() == 0
            await until_covered(bus, engine)
        assert await messages(bus) == 5
        assert found(engine) == await expected(bus, store)
        assert list(numbered(folder)) == []
        assert not PurgedSequences.of(folder, after=0).has_all(1, last)


async def test_p2_a_flow_that_goes_on_while_the_broker_is_slow_stays(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.visibility.retention.purges._FRESH", 0.01)
    await mesh.put(template())
    last = await finish(bus, 1, 2)
    look, looks = Departures.look, count()

    async def slowly(departures: Departures, verdicts: Sequence[Verdict]) -> list[Look]:
        seen = await look(departures, verdicts)
        if not next(looks):
            await publish(bus, decision(FlowHalted(reason="a person"), flow_id=flow_id(2)))
            await asyncio.sleep(0.02)
        return seen

    async with followed(bus, engine, folder, last) as locked:
        monkeypatch.setattr(Departures, "look", slowly)
        work = retention(bus, engine, locked)
        await purge_all(work, flows=1)
    assert await FlowStore(bus, mesh.catalog).newest("refund", flow_id(2)) == last + 1
    assert len(await FlowStore(bus, mesh.catalog).messages("refund", flow_id(2))) == 4
    assert [each.flow_id for _, each in numbered(folder)] == [flow_id(1)]


async def test_p2_one_purge_without_an_answer_keeps_no_other_flow(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2, 3)
    purge = Departures.purge

    async def fails_for_one(departures: Departures, verdict: Verdict, judged: Sequence[RawMessage]) -> None:
        if verdict.flow_id == flow_id(1):
            raise BrokerUnavailable("no answer")
        await purge(departures, verdict, judged)

    async with followed(bus, engine, folder, last) as locked:
        work = retention(bus, engine, locked)
        with monkeypatch.context() as broken:
            broken.setattr(Departures, "purge", fails_for_one)
            with pytest.raises(BrokerUnavailable):
                await purge_all(work, flows=3)
        assert await in_flow(bus) == {flow_id(1)}
        late = await publish(bus, enriched(flow_id(2)))
        await until(lambda: mark(folder) >= late)
        await handle_all(bus)
        await purge_all(work, flows=1)
        for _ in range(3):
            await work.round()
    assert await in_flow(bus) == set(), "what came late to a flow whose purge was answered is not purged"


async def test_p2_each_purge_without_an_answer_is_repeated(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2, 3)
    async with followed(bus, engine, folder, last) as locked:
        work = retention(bus, engine, locked)
        await purge_without_answer(work, monkeypatch, flows=3)
        assert len(await in_flow(bus)) == 3
        await purge_all(work, flows=3)
    assert await in_flow(bus) == set()
    assert len(list(numbered(folder))) == 3


async def test_p2_what_was_not_purged_before_a_later_verdict_is_purged_after_a_restart(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1, 2, 3)
    async with followed(bus, engine, folder, last) as locked:
        work = retention(bus, engine, locked)
        await purge_without_answer(work, monkeypatch, flows=3)
        last = await finish(bus, 4)
        await until(lambda: mark(folder) >= last)
        await until_covered(bus, engine)
        await handle_all(bus)
        with monkeypatch.context() as broken:  # as if only the newest verdicts were purged before the crash
            broken.setattr("handrail.visibility.retention.purges.Purges.go_on", purges_nothing)
            for _ in range(3):
                await work.round()
        assert len(list(numbered(folder))) == 4
        await purge_all(retention(bus, engine, locked), flows=4)
        with engine.connect() as connection:
            assert None not in connection.execute(select(schema.flow.c.verdict)).scalars().all()
    assert await in_flow(bus) == set()


async def test_p2_what_comes_late_is_archived_before_it_is_purged(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1)
    async with followed(bus, engine, folder, last) as locked:
        work = retention(bus, engine, locked)
        await purge_all(work, flows=1)
    late = await publish(bus, enriched(FLOW_ID))
    await handle_all(bus)
    with LockedFolder(folder.path) as locked:
        work = retention(bus, engine, locked)  # nobody follows, so nothing is sealed
        for _ in range(4):
            await work.round()
        assert await in_flow(bus) == {FLOW_ID}
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= late)
            for _ in range(4):
                await work.round()
            assert await in_flow(bus) == set()
            audit = Audit(bus, folder)
            assert await audit.record() >= late
            assert audit.problem == ""


async def test_p2_nothing_is_purged_from_a_stream_that_the_archive_was_not_made_of(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    await mesh.put(template())
    last = await finish(bus, 1)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=1)
        await bus.request_json(f"$JS.API.STREAM.DELETE.{FLOW}")
        await bus.request_json("$JS.API.STREAM.DELETE.TEMPLATE")
        await ensure_streams(bus)
        await Mesh(bus, Catalog(bus)).put(template())
        await publish(bus, start(FLOW_ID), enriched(FLOW_ID), failed(), enriched(flow_id(2)))
        (folder.path / "purged").unlink()  # as after a crash: the verdict's flow would be looked at again
        for _ in range(3):
            assert await retention(bus, engine, locked).round() == 0
        assert await messages(bus) == 3
        assert "another stream than the archive's" in caplog.text
        assert len(list(numbered(folder))) == 1


async def purges_nothing(*_: object) -> int:
    """Stands in for purges that a crash prevents."""
    return 0


async def messages(bus: NatsBus) -> int:
    """How many messages FLOW has of the flow."""
    filtered = {"subjects_filter": f"flow.refund.{FLOW_ID}.>"}
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", filtered)
    return len(info["state"].get("subjects") or {})


def undoable() -> Template:
    """A template whose first step can be undone."""
    made = template()
    made.proto.steps[0].effect = EFFECT_UNDOABLE
    made.proto.steps[0].undo.timeout.CopyFrom(Duration(seconds=10))
    return Template.compile(made.proto, made.contracts)


async def cancel(bus: NatsBus) -> int:
    """Stores a flow that was cancelled after its first step failed; returns the last sequence."""
    last = await publish(bus, start(FLOW_ID), failed())
    asked = FlowHalted(mode=HaltMode.HALT_MODE_CANCEL, reason="a person", by="ola")
    last = await publish(bus, decision(asked, flow_id=FLOW_ID, based_on=last))
    closed = FlowClosed(status=FlowStatus.FLOW_STATUS_CANCELLED, reason="a person")
    return await publish(bus, decision(closed, flow_id=FLOW_ID, based_on=last))


def failed() -> Entry:
    """The first step's failure."""
    root = ids.start_id(FLOW_ID)
    message = StepFailed(error_class="E", text="no", retryable=False)
    event_id = ids.attempt_id("failure", FLOW_ID, "enrich", root, 0, 1)
    address = Address("refund", FLOW_ID, Kind.FAILURE, "enrichment", event_id, message.DESCRIPTOR.full_name)
    said = event(address, message)
    said.step, said.root, said.attempt = "enrich", root, 1
    return Entry(address, said)
