"""Who may ask the index, and what a caller is told while it can't be asked."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Connection, Engine, delete, insert, text

from handrail.coordinator.lists.index import AT_ONCE, Index, IndexSettings
from handrail.index.v1.index_service_pb2 import (
    ApprovalRow,
    CountFailuresRequest,
    DivergenceRow,
    FlowRow,
    Page,
    Query,
    Scope,
)
from handrail.index.v1.index_service_pb2 import CountFlowsByHourResponse as CountedHours
from handrail.index.v1.index_service_pb2 import ListApprovalsResponse as ListedApprovals
from handrail.index.v1.index_service_pb2 import ListDivergencesResponse as ListedDivergences
from handrail.index.v1.index_service_pb2 import ListFlowsRequest as Question
from handrail.index.v1.index_service_pb2 import ListFlowsResponse as Answer
from handrail.index.v1.index_service_pb2_grpc import IndexServiceServicer, add_IndexServiceServicer_to_server
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.shared_secret import new_secret
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.approval_service_pb2 import ListApprovalsRequest, ListApprovalsResponse
from handrail.v1.flow_service_pb2 import (
    Approval,
    CountFlowsByHourRequest,
    CountFlowsByHourResponse,
    Flow,
    FlowHour,
    GetFlowRequest,
    GetFlowResponse,
    ListDivergencesRequest,
    ListDivergencesResponse,
    ListedDivergence,
    ListFlowsRequest,
    ListFlowsResponse,
)
from handrail.v1.listing_pb2 import Total
from handrail.visibility.index import schema
from handrail.visibility.index.database import Position, prepare
from handrail.visibility.serve.guard import AT_ONCE as ADMITTED
from handrail.visibility.serve.guard import Guard
from handrail.visibility.serve.listing import COUNTED
from handrail.visibility.serve.server import IndexServer, ServeSettings
from handrail.visibility.serve.snapshot import AT_ONCE as QUESTIONS
from handrail.visibility.serve.snapshot import Snapshots
from tests.support import flows
from tests.support.api import Api, Refusal, bearer, refused, running_api
from tests.support.indexed import ask, asking, secret_file, serving, silent_server
from tests.support.mesh import Mesh, publish
from tests.support.raw_http2 import RawConnection
from tests.support.waiting import PATIENCE, eventually, until

METHOD = "FlowService/ListFlows"
LIST_FLOWS = "/handrail.index.v1.IndexService/ListFlows"
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
EVERYTHING = Question(query=Query(scope=Scope(every_type=True), page_size=10))


async def refusal_of(api: Api, who: str = "vera", **fields: Any) -> Refusal:
    metadata = bearer(api.token(who, "viewer"))
    request = ListFlowsRequest(**fields)
    return await refused(api.call(METHOD, request, ListFlowsResponse, metadata=metadata, timeout=PATIENCE))


async def asked(port: int, *metadata: tuple[str, str | bytes]) -> Answer:
    """Asks the index of a port without a coordinator."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(
            LIST_FLOWS,
            request_serializer=Question.SerializeToString,
            response_deserializer=Answer.FromString,
        )
        answer: Answer = await method(EVERYTHING, metadata=metadata)
        return answer


async def is_refused(port: int, *metadata: tuple[str, str | bytes]) -> bool:
    refusal = await refused(asked(port, *metadata))
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    return refusal.reason == "UNAUTHENTICATED"


async def test_only_who_knows_the_secret_is_answered(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    secret = file.read_text()
    async with serving(bus, tables, file) as port:
        assert (await asked(port, ("authorization", f"Bearer {secret}"))).HasField("page")
        assert await is_refused(port)
        for wrong in (secret, f"bearer {secret}", f"Bearer {new_secret()}", f"Bearer {secret[:-1]}", "Bearer "):
            assert await is_refused(port, ("authorization", wrong))
        file.write_text(new_secret())
        assert await is_refused(port, ("authorization", f"Bearer {secret}"))
        assert (await asked(port, ("authorization", f"Bearer {file.read_text()}"))).HasField("page")


async def test_strangers_who_send_no_message_keep_nobody_from_lists(
    bus: NatsBus, tables: Engine, tmp_path: Path
) -> None:
    secret = secret_file(tmp_path)
    async with serving(bus, tables, secret) as port, RawConnection(f"127.0.0.1:{port}") as stranger:
        for _ in range(2 * ADMITTED):
            await stranger.begin(LIST_FLOWS)
        assert await stranger.received(b"the secret is missing")  # refused before any message came
        assert (await asked(port, ("authorization", f"Bearer {secret.read_text()}"))).HasField("page")


async def test_connections_of_strangers_end_when_they_stay_idle(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    secret = secret_file(tmp_path)
    settings = ServeSettings(address="127.0.0.1:0", secret=secret, connections=8, idle=timedelta(seconds=1))
    server = IndexServer(tables, bus, settings)
    port = await server.start()
    address = f"127.0.0.1:{port}"
    async with AsyncExitStack() as others, RawConnection(address) as stranger:
        for _ in range(8):
            await others.enter_async_context(RawConnection(address))
        assert not await stranger.received(b"a text that never comes")  # the server ends it
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret))
        assert await eventually(lambda: is_answered(index))
        await index.close()
    await server.stop()


async def is_answered(index: Index) -> bool:
    try:
        return (await index.ask(index.questions.ListFlows, EVERYTHING)).HasField("page")
    except HandrailError:
        return False


async def test_a_message_of_a_coordinator_is_awaited_for_a_bounded_time(
    bus: NatsBus, tables: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secret_file(tmp_path)
    limited = partial(Guard, message_within=timedelta(seconds=0.1))
    monkeypatch.setattr("handrail.visibility.serve.server.Guard", limited)
    async with serving(bus, tables, secret) as port, RawConnection(f"127.0.0.1:{port}") as slow:
        await slow.begin(LIST_FLOWS, more={"authorization": f"Bearer {secret.read_text()}"})
        assert await slow.received(b"did not come in time")


async def test_more_calls_of_coordinators_than_may_be_in_progress_are_refused(
    bus: NatsBus, tables: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secret_file(tmp_path)
    limited = partial(Guard, at_once=1, message_within=timedelta(minutes=5))
    monkeypatch.setattr("handrail.visibility.serve.server.Guard", limited)
    bearer = ("authorization", f"Bearer {secret.read_text()}")
    async with serving(bus, tables, secret) as port:
        async with RawConnection(f"127.0.0.1:{port}") as slow:

            async def exhausted() -> bool:
                # One of the slow calls is admitted sooner or later: the first may meet the call that asks.
                await slow.begin(LIST_FLOWS, more=dict([bearer]))
                return await is_exhausted(port, bearer)

            assert await eventually(exhausted)
        assert not await eventually(lambda: is_exhausted(port, bearer), lambda exhausted: not exhausted)


async def is_exhausted(port: int, bearer: tuple[str, str]) -> bool:
    try:
        await asked(port, bearer)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return False


@pytest.mark.parametrize(
    "content",
    ["", "short", " " * 40, "a" * 31, "a" * 20 + " " + "b" * 20],
    ids=["empty", "short", "blank", "31 letters", "two words"],
)
async def test_a_file_without_a_secret_lets_nobody_in(
    bus: NatsBus, tables: Engine, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(content)
    async with serving(bus, tables, file) as port:
        assert await is_refused(port, ("authorization", f"Bearer {content.strip()}".strip()))
        file.unlink()
        assert await is_refused(port, ("authorization", "Bearer"))


async def test_other_machines_are_served_with_tls_only(bus: NatsBus, engine: Engine, tmp_path: Path) -> None:
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:7072", "index.example:7072"):
        with pytest.raises(ValueError, match="with TLS"):
            IndexServer(engine, bus, ServeSettings(address=address, secret=secret_file(tmp_path)))


async def test_without_an_index_a_list_says_so_and_names_the_scan(mesh: Mesh, bus: NatsBus, tmp_path: Path) -> None:
    await mesh.put(flows.template())
    await publish(bus, flows.start())
    async with running_api(bus, tmp_path, decides=False) as api:
        refusal = await refusal_of(api)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_INDEX")
        assert "--scan" in refusal.status.message
        found = await ask(api, METHOD, ListFlowsRequest(scan=True), ListFlowsResponse)
        assert [each.flow_id for each in found.flows] == [flows.FLOW_ID]


async def test_an_index_that_is_away_is_named_and_asked_again_once_it_is_there(
    mesh: Mesh, bus: NatsBus, tables: Engine, tmp_path: Path
) -> None:
    await mesh.put(flows.template())
    await publish(bus, flows.start())
    secret = secret_file(tmp_path)
    async with serving(bus, tables, secret) as port:
        pass
    async with asking(bus, tmp_path, port=port, secret=secret) as api:
        refusal = await refusal_of(api)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "INDEX_UNAVAILABLE")
        assert "can't be reached" in refusal.status.message
        assert "--scan" in refusal.status.message
        assert (await ask(api, "FlowService/GetFlow", GetFlowRequest(flow_id=flows.FLOW_ID), GetFlowResponse)).flow
        async with serving(bus, tables, secret, port=port):
            await eventually(lambda: answers(api))


async def answers(api: Api) -> bool:
    try:
        await ask(api, METHOD, ListFlowsRequest(), ListFlowsResponse)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_wrong_secret_is_no_matter_of_the_callers(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    async with serving(bus, tables, secret_file(tmp_path)) as port:
        other = secret_file(tmp_path, "another")
        async with asking(bus, tmp_path, port=port, secret=other) as api:
            refusal = await refusal_of(api)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "INDEX_UNAVAILABLE")
            assert "the same one" in refusal.status.message
            other.unlink()
            assert "can't read the secret" in (await refusal_of(api)).status.message


async def test_an_index_that_is_not_made_yet_is_said_to_be_unavailable(
    bus: NatsBus, engine: Engine, tmp_path: Path
) -> None:
    secret = secret_file(tmp_path)
    async with serving(bus, engine, secret) as port, asking(bus, tmp_path, port=port, secret=secret) as api:
        refusal = await refusal_of(api)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "INDEX_UNAVAILABLE")
        prepare(engine, "now")
        assert await answers(api)


async def test_a_silent_index_keeps_a_caller_no_longer_than_its_deadline_and_others_not_at_all(
    mesh: Mesh, bus: NatsBus, tmp_path: Path
) -> None:
    await mesh.put(flows.template())
    await publish(bus, flows.start())
    with silent_server() as port:
        refusals = await while_silent(bus, tmp_path, port)
    assert {each.reason for each in refusals} == {"INDEX_UNAVAILABLE"}
    assert sum("are in progress" in each.status.message for each in refusals) == 8


async def while_silent(bus: NatsBus, folder: Path, port: int) -> list[Refusal]:
    """The refusals of more calls than may ask at once; in between, a flow is read."""
    async with asking(bus, folder, port=port, secret=secret_file(folder)) as api:
        waiting = [asyncio.create_task(refusal_of(api, f"reader-{each}")) for each in range(AT_ONCE + 8)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert not all(each.done() for each in waiting)  # some are refused at once
        assert (await ask(api, "FlowService/GetFlow", GetFlowRequest(flow_id=flows.FLOW_ID), GetFlowResponse)).flow
        return await asyncio.gather(*waiting)


def flow_row(first: int, flow_type: str = "refund") -> dict[str, object]:
    return {
        **{"first_sequence": first, "flow_type": flow_type, "flow_id": f"{first:032x}", "version": 1},
        **{"status": "RUNNING", "reason": "", "halt_mode": 0, "requester": "", "key": "", "retrying": False},
        **{"last_sequence": first, "messages": 1},
    }


def failure_row(sequence: int, first: int, signature: str) -> dict[str, object]:
    return {
        **{"sequence": sequence, "first_sequence": first, "flow_type": "refund", "step": "pay", "agent": "ledger"},
        **{"error_class": "Timeout", "text": f"failure {sequence}", "signature": signature},
        "time": NOON + timedelta(seconds=sequence),
    }


async def test_a_total_is_counted_up_to_a_limit(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    with tables.begin() as connection:
        connection.execute(insert(schema.flow), [flow_row(first) for first in range(1, COUNTED + 2)])
    secret = secret_file(tmp_path)
    async with serving(bus, tables, secret) as port:
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret))
        page = (await index.ask(index.questions.ListFlows, EVERYTHING)).page
        assert page.total.items <= COUNTED
        assert page.total.at_least
        with tables.begin() as connection:
            connection.execute(delete(schema.flow).where(schema.flow.c.first_sequence == 1))

        async def total() -> Total:
            return (await index.ask(index.questions.ListFlows, EVERYTHING)).page.total

        # Counting has a time of its own, which a busy machine needs for the first window.
        await eventually(total, lambda each: each == Total(items=COUNTED))
        await index.close()


async def test_failures_are_counted_by_signature_within_the_scope(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    with tables.begin() as connection:
        connection.execute(insert(schema.flow), [flow_row(1), flow_row(2, "audit")])
        rows = [(11, 1, "a"), (12, 1, "b"), (13, 1, "b"), (14, 2, "b")]
        connection.execute(insert(schema.failure), [failure_row(*each) for each in rows])
    secret = secret_file(tmp_path)
    async with serving(bus, tables, secret) as port:
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret))

        async def counted(scope: Scope, **fields: Any) -> list[tuple[str, int, str, str]]:
            request = CountFailuresRequest(scope=scope, **{"most": 10, **fields})
            counts = (await index.ask(index.questions.CountFailures, request)).counts
            return [(each.signature, each.failures, each.flow_id, each.text) for each in counts]

        last, second = ("b", 3, f"{2:032x}", "failure 14"), ("a", 1, f"{1:032x}", "failure 11")
        assert await counted(Scope(every_type=True)) == [last, second]
        assert await counted(Scope(every_type=True), most=1) == [last]
        assert await counted(Scope(flow_types=["refund"])) == [("b", 2, f"{1:032x}", "failure 13"), second]
        assert await counted(Scope(every_type=True), filters=["flow_type = audit"]) == [("b", 1, *last[2:])]
        since = timestamp(NOON + timedelta(seconds=14))
        assert await counted(Scope(every_type=True), since=since) == [("b", 1, *last[2:])]
        assert await counted(Scope()) == []
        await index.close()


async def test_a_question_that_takes_too_long_is_cut_off(tables: Engine) -> None:
    snapshots = Snapshots(tables)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(HandrailError, match="too slow for this filter"):
        await snapshots.ask(lambda connection, _: connection.execute(text(endless)).all(), timedelta(seconds=0.3))
    assert await snapshots.ask(lambda connection, position: position.sequence, timedelta(seconds=5)) == 0
    snapshots.close()


async def test_a_search_in_long_texts_is_cut_off_in_time(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    with tables.begin() as connection:
        long = [{**flow_row(first), "reason": "a" * 4000} for first in range(1, 5001)]
        connection.execute(insert(schema.flow), long)
    secret = secret_file(tmp_path)
    searched = Question(query=Query(scope=Scope(every_type=True), page_size=10, filters=["a" * 199 + "b"]))
    async with serving(bus, tables, secret) as port:
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret))
        method, patience = index.questions.ListFlows, timedelta(seconds=0.3)
        questions = [index.ask(method, searched, patience) for _ in range(QUESTIONS)]
        assert any(await asyncio.gather(*questions, return_exceptions=True))
        # All threads were busy with it, and are free again.
        assert (await index.ask(method, EVERYTHING, timedelta(seconds=30))).rows
        await index.close()


async def test_slow_questions_of_one_caller_keep_no_other_waiting(bus: NatsBus, tables: Engine, tmp_path: Path) -> None:
    with tables.begin() as connection:
        long = [{**flow_row(first), "reason": "a" * 4000} for first in range(1, 5001)]
        connection.execute(insert(schema.flow), long)
    secret, caller = secret_file(tmp_path), "rita"
    words = " OR ".join("a" * 150 + end for end in "bcdefghijk")
    slow = Question(query=Query(scope=Scope(every_type=True), page_size=10, filters=[words]))
    async with serving(bus, tables, secret) as port:
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret), lambda: caller)
        method = index.questions.ListFlows
        questions = [asyncio.create_task(index.ask(method, slow)) for _ in range(4 * QUESTIONS)]
        await asyncio.sleep(0)  # all of them wait for their turn, or for their answer
        caller = "vera"
        assert (await index.ask(method, EVERYTHING, timedelta(seconds=30))).rows
        assert not all(each.done() for each in questions)
        reasons = {
            each.reason_name
            for each in await asyncio.gather(*questions, return_exceptions=True)
            if isinstance(each, HandrailError)
        }
        assert "LIMIT_EXCEEDED" in reasons
        await index.close()


async def test_a_question_ends_with_the_wait_of_its_caller(tables: Engine) -> None:
    snapshots, begun = Snapshots(tables, at_once=1), threading.Event()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def question(connection: Connection, _: Position) -> None:
        begun.set()
        connection.execute(text(endless)).all()

    asking = asyncio.create_task(snapshots.ask(question, timedelta(seconds=10)))
    await until(begun.is_set)
    # A statement that is cancelled before it runs goes on in PostgreSQL.
    await eventually(lambda: asyncio.to_thread(is_running, tables))
    asking.cancel()
    assert await snapshots.ask(lambda connection, position: position.sequence, timedelta(seconds=5)) == 0
    snapshots.close()


def is_running(engine: Engine) -> bool:
    """Whether a recursive statement runs; in SQLite nobody can tell, and it does not matter."""
    if engine.dialect.name != "postgresql":
        return True
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH RECURSIVE%'"
    with engine.connect() as connection:
        return bool(connection.execute(text(active)).scalar_one())


async def test_no_question_changes_the_index_in_postgresql(tables: Engine, caplog: pytest.LogCaptureFixture) -> None:
    if tables.dialect.name != "postgresql":
        return
    snapshots = Snapshots(tables)
    with pytest.raises(HandrailError, match="the log of visibility says why"):
        await snapshots.ask(lambda connection, _: connection.execute(text("DELETE FROM flow")), timedelta(seconds=5))
    assert "read-only transaction" in caplog.text  # what the database says is for the log
    snapshots.close()


class Liar(IndexServiceServicer):
    """What somebody answers who took the port of visibility: flows of any type, whatever is asked."""

    async def ListFlows(self, request: Question, context: object) -> Answer:
        rows = [FlowRow(flow=Flow(flow_id=flows.FLOW_ID, flow_type=each)) for each in ("refund", "payroll")]
        return Answer(rows=rows, page=Page())

    async def ListApprovals(self, request: object, context: object) -> ListedApprovals:
        rows = [ApprovalRow(approval=Approval(flow_type=each)) for each in ("refund", "payroll")]
        return ListedApprovals(rows=rows, page=Page())

    async def ListDivergences(self, request: object, context: object) -> ListedDivergences:
        rows = [DivergenceRow(divergence=ListedDivergence(flow_type=each)) for each in ("refund", "payroll")]
        return ListedDivergences(rows=rows, page=Page())

    async def CountFlowsByHour(self, request: object, context: object) -> CountedHours:
        return CountedHours(counts=[FlowHour(flow_type=each, began=1) for each in ("refund", "payroll")])


async def test_an_index_that_says_more_than_it_is_asked_shows_nobody_more(
    mesh: Mesh, bus: NatsBus, tmp_path: Path
) -> None:
    await mesh.put(flows.template())
    liar = grpc.aio.server()
    add_IndexServiceServicer_to_server(Liar(), liar)  # type: ignore[abstract]  # the others are refused
    port = liar.add_insecure_port("127.0.0.1:0")
    await liar.start()
    async with asking(bus, tmp_path, port=port, secret=secret_file(tmp_path)) as api:
        found = await ask(api, METHOD, ListFlowsRequest(), ListFlowsResponse, "reader@refund")
        assert [each.flow_type for each in found.flows] == ["refund"]
        mask = FieldMask(paths=["flow_type"])
        approvals = await ask(
            api,
            "ApprovalService/ListApprovals",
            ListApprovalsRequest(include_closed=True, read_mask=mask),
            ListApprovalsResponse,
            "reader@refund",
        )
        assert [each.flow_type for each in approvals.approvals] == ["refund"]
        diverged = await ask(
            api, "FlowService/ListDivergences", ListDivergencesRequest(), ListDivergencesResponse, "reader@refund"
        )
        assert [each.flow_type for each in diverged.divergences] == ["refund"]
        hours = await ask(
            api, "FlowService/CountFlowsByHour", CountFlowsByHourRequest(), CountFlowsByHourResponse, "reader@refund"
        )
        assert [each.flow_type for each in hours.counts] == ["refund"]
    await liar.stop(None)


def test_an_authority_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    settings = IndexSettings(address="index:7072", secret=tmp_path / "secret", authority=tmp_path / "missing.pem")
    with pytest.raises(ValueError, match=r"missing\.pem can't be read"):
        Index(settings)
