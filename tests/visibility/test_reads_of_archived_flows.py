"""What is said of archived flows: to whom, by which verdict, and what is told while the archive can't be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import VerdictLog, numbered
from handrail.visibility.index import schema
from tests.support.api import Api, Refusal, bearer, refused, running_api
from tests.support.archived import mark
from tests.support.flows import enriched, notified, start, template
from tests.support.followed import following, until_covered
from tests.support.indexed import asking, secret_file, serving, silent_server
from tests.support.mesh import Mesh, publish
from tests.support.purging import old_flow_id
from tests.support.retained import do_not_wait, finish, flow_id, handle_all, in_flow, purge_all, retention
from tests.support.shown import call, events_of, flow_of, opened_watch, watched
from tests.support.waiting import PATIENCE, until

RANDOM = old_flow_id()
FLOW = flow_id(1)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


@pytest.fixture(autouse=True)
async def archive(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> LockedFolder:
    """An archive with flows that left FLOW: one with a random id, and others."""
    do_not_wait(monkeypatch)
    await mesh.put(template(), template("audit"))
    await finish(bus, 1, 2)
    last = await publish(bus, start(RANDOM), enriched(RANDOM), notified(RANDOM))
    locked = LockedFolder(folder.path)
    async with following(bus, engine, locked):
        await until(lambda: mark(folder) >= last)
        await until_covered(bus, engine)
        await handle_all(bus)
        await purge_all(retention(bus, engine, locked), flows=3)
    assert await in_flow(bus) == set()
    return locked


@pytest.fixture
async def api(bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator that asks an index with this archive."""
    secret = secret_file(tmp_path)
    async with (
        serving(bus, engine, secret, archive=folder) as port,
        asking(bus, tmp_path, port=port, secret=secret) as api,
    ):
        yield api


def verdict_of(folder: Folder, flow_id: str) -> tuple[int, Verdict]:
    """The verdict on a flow, and its number."""
    return next((number, each) for number, each in numbered(folder) if each.flow_id == flow_id)


async def refusal_of(api: Api, flow_id: str, *grants: str) -> Refusal:
    """How GetFlow is refused."""
    token = api.token("vera", grants=grants or ["reader@*"])
    request = pb.GetFlowRequest(flow_id=flow_id)
    call = api.call("FlowService/GetFlow", request, pb.GetFlowResponse, metadata=bearer(token), timeout=PATIENCE)
    return await refused(call)


async def test_an_archived_flow_says_so(api: Api) -> None:
    for each in (FLOW, RANDOM):
        answer = await call(api, "FlowService/GetFlow", pb.GetFlowRequest(flow_id=each), pb.GetFlowResponse)
        assert answer.flow.archived
        events = pb.ListFlowEventsRequest(flow_id=each)
        assert (await call(api, "FlowService/ListFlowEvents", events, pb.ListFlowEventsResponse)).archived
        assert answer.flow.status == FlowStatus.FLOW_STATUS_COMPLETED


async def test_p4_the_stored_verdict_is_shown_and_not_judged_again(
    api: Api, archive: LockedFolder, engine: Engine
) -> None:
    number, verdict = verdict_of(archive, FLOW)
    summary = {**verdict.summary, "status": "FAILED", "reason": "so it was judged"}
    void = {verdict.sequences[1]: "ERROR_REASON_WRONG_AGENT: it did not count"}
    VerdictLog(archive).replace(number, replace(verdict, summary=summary, void=void))
    flow = await flow_of(api, FLOW)
    assert (flow.status, flow.status_reason) == (FlowStatus.FLOW_STATUS_FAILED, "so it was judged")
    assert [each.void_reason for each in await events_of(api, FLOW)] == ["", "it did not count", ""]
    seen = await watched(api, FLOW)
    assert [each.event.void_reason for each in seen] == ["", "it did not count", "", ""]
    assert [each.status for each in seen[-2:]] == [FlowStatus.FLOW_STATUS_FAILED] * 2
    # An earlier state is what its messages say.
    earlier = await flow_of(api, FLOW, as_of_sequence=verdict.sequences[1])
    assert earlier.status == FlowStatus.FLOW_STATUS_RUNNING


async def test_a_watch_of_an_archived_flow_ends_after_its_last_event(api: Api) -> None:
    first, *others = [each.sequence for each in await events_of(api, FLOW)]
    watch = opened_watch(api, FLOW, after=first)
    assert [(await watch.read()).sequence for _ in range(3)] == [*others, others[-1]]
    assert (await refused(watch.read())).reason == "FLOW_ARCHIVED"


async def test_who_may_not_read_a_flow_type_finds_nothing(api: Api) -> None:
    for each in (FLOW, RANDOM):
        refusal = await refusal_of(api, each, "reader@audit")
        assert (refusal.reason, refusal.status.message) == ("FLOW_NOT_FOUND", f"there is no flow {each}")
    nothing = await refusal_of(api, flow_id(77))
    assert nothing.status.message == f"there is no flow {flow_id(77)}"


WRITES: dict[str, tuple[Message, type[Message]]] = {
    "CancelFlow": (pb.CancelFlowRequest(reason="why"), pb.CancelFlowResponse),
    "CompensateFlow": (pb.CompensateFlowRequest(reason="why"), pb.CompensateFlowResponse),
    "RetryStep": (pb.RetryStepRequest(step="enrich", reason="why"), pb.RetryStepResponse),
    "MigrateFlow": (pb.MigrateFlowRequest(to_version=1, reason="why"), pb.MigrateFlowResponse),
}


@pytest.mark.parametrize("method", WRITES)
async def test_p7_calls_that_write_are_refused(api: Api, bus: NatsBus, method: str) -> None:
    request, answer = WRITES[method]
    for each in (FLOW, RANDOM):
        request.flow_id = each  # type: ignore[attr-defined]  # all of them have it
        refusal = await refused(call(api, f"FlowService/{method}", request, answer))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FLOW_ARCHIVED")
        reader = bearer(api.token("vera", grants=["reader@*"]))
        refusal = await refused(api.call(f"FlowService/{method}", request, answer, metadata=reader))
        assert refusal.reason == "MISSING_ROLE"
    assert await in_flow(bus) == set()


async def test_an_erased_flow_shows_its_verdict_and_nothing_else(api: Api, archive: LockedFolder) -> None:
    number, verdict = verdict_of(archive, FLOW)
    VerdictLog(archive).replace(number, verdict.as_erased())
    answer = await call(api, "FlowService/GetFlow", pb.GetFlowRequest(flow_id=FLOW), pb.GetFlowResponse)
    assert (answer.flow.status, answer.flow.message_count) == (FlowStatus.FLOW_STATUS_COMPLETED, 3)
    assert not answer.flow.step_runs
    for method, request, response in (
        ("ListFlowEvents", pb.ListFlowEventsRequest(flow_id=FLOW), pb.ListFlowEventsResponse),
        ("PlanCompensation", pb.PlanCompensationRequest(flow_id=FLOW), pb.PlanCompensationResponse),
    ):
        refusal = await refused(call(api, f"FlowService/{method}", request, response))
        assert refusal.reason == "FLOW_ARCHIVED"
        assert "were erased" in refusal.status.message


async def test_a_damaged_segment_is_named_and_nothing_of_it_is_shown(api: Api, archive: LockedFolder) -> None:
    first = verdict_of(archive, FLOW)[1].sequences[0]
    segment = max(each for each in archive.firsts() if each <= first)
    file = archive.file(segment)
    whole = file.read_bytes()
    for position in range(0, len(whole), 53):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        refusal = await refusal_of(api, FLOW)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "ARCHIVE_DAMAGED")
        assert file.name in refusal.status.message
    file.unlink()
    refusal = await refusal_of(api, FLOW)
    assert refusal.reason == "ARCHIVE_DAMAGED"
    file.write_bytes(whole)
    assert (await flow_of(api, FLOW)).message_count == 3


async def test_a_flow_that_the_index_has_not_taken_yet_is_found(api: Api, engine: Engine) -> None:
    before = [await flow_of(api, each) for each in (FLOW, RANDOM)]
    with engine.begin() as connection:
        connection.execute(schema.flow.update().values(verdict=None))
        connection.execute(schema.position.update().values(verdicts=0))
    assert [await flow_of(api, each) for each in (FLOW, RANDOM)] == before
    assert (await refusal_of(api, RANDOM, "reader@audit")).reason == "FLOW_NOT_FOUND"
    assert (await refusal_of(api, flow_id(77))).reason == "FLOW_NOT_FOUND"


async def test_without_visibility_it_is_said_where_the_flow_is(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, decides=False) as api:
        refusal = await refusal_of(api, FLOW)
        assert refusal.reason == "FLOW_ARCHIVED"
        assert "no visibility to read it from (--visibility)" in refusal.status.message
        # Nothing tells an unknown random id from one that was purged.
        assert (await refusal_of(api, RANDOM)).reason == "FLOW_NOT_FOUND"


async def test_while_visibility_is_away_it_is_said_where_the_flow_is(bus: NatsBus, tmp_path: Path) -> None:
    async with asking(bus, tmp_path, port=1, secret=secret_file(tmp_path)) as api:
        refusal = await refusal_of(api, FLOW)
        assert refusal.reason == "FLOW_ARCHIVED"
        assert "it can't be shown now: visibility can't be reached" in refusal.status.message
        refusal = await refusal_of(api, RANDOM)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "INDEX_UNAVAILABLE")
        assert "whether the archive has it can't be told" in refusal.status.message
        assert (await refusal_of(api, flow_id(77))).reason == "FLOW_NOT_FOUND"


async def test_a_visibility_that_does_not_answer_holds_up_few_calls_and_none_for_long(
    bus: NatsBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.coordinator.lists.archive.AT_ONCE", 2)
    with silent_server() as port:
        async with asking(bus, tmp_path, port=port, secret=secret_file(tmp_path)) as api:
            refusals = await asyncio.gather(*(refusal_of(api, FLOW) for _ in range(5)))
            assert {each.reason for each in refusals} == {"FLOW_ARCHIVED"}
            assert sum("2 archived flows are being read" in each.status.message for each in refusals) == 3
