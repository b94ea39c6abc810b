"""What strangers and callers can take from others before and after a token is read: a bounded share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from handrail.coordinator.api.budget_guard import CHECKS_OF_A_CONNECTION, HEALTH_WATCHES
from handrail.coordinator.api.budgets import Limit
from handrail.coordinator.api.receiving import STRANGERS
from handrail.mesh.bus import NatsBus
from handrail.v1.flow_service_pb2 import ListFlowsRequest
from tests.support import flows
from tests.support.api import Api, Refusal, bearer, refused, running_api
from tests.support.mesh import publish
from tests.support.raw_http2 import RawConnection
from tests.support.waiting import PATIENCE, eventually

CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
LIST_FLOWS = "/handrail.v1.FlowService/ListFlows"
SCAN = ListFlowsRequest(scan=True).SerializeToString()
GET_FLOW = "/handrail.v1.FlowService/GetFlow"
WATCH_FLOW = "/handrail.v1.FlowService/WatchFlow"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FOR_EVER = timedelta(minutes=10)


def as_is(data: bytes) -> bytes:
    return data


def unary(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(method, request_serializer=as_is, response_deserializer=as_is)


def silent(channel: grpc.aio.Channel, method: str, **options: Any) -> Any:
    """A call that sends no message."""
    rpc: Any = channel.stream_unary(method, request_serializer=as_is, response_deserializer=as_is)
    return rpc(**{"timeout": 2 * PATIENCE, **options})


def watch_flow(api: Api, name: str) -> Any:
    rpc: Any = api.channel.unary_stream(WATCH_FLOW, request_serializer=as_is, response_deserializer=as_is)
    return rpc(b"\x0a\x20" + flows.FLOW_ID.encode(), metadata=bearer(api.token(name)))


async def health(channel: grpc.aio.Channel) -> int:
    answer = await unary(channel, CHECK)(b"", timeout=PATIENCE)
    return health_pb2.HealthCheckResponse.FromString(answer).status


@pytest.fixture
async def strict(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with low limits, which waits for messages for as long as a test takes."""
    limit = Limit(total=3, each=2)
    async with running_api(bus, tmp_path, calls=limit, streams=limit, message_timeout=FOR_EVER) as api:
        await api.replica.catalog.put(flows.stored(flows.template()))
        yield api


async def test_a_call_whose_message_does_not_come_is_ended(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, message_timeout=timedelta(seconds=0.5)) as api:
        known = silent(api.channel, GET_FLOW, metadata=bearer(api.token("vera")))
        stranger = silent(api.channel, CHECK)
        for call in (known, stranger):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
            assert "its message did not come in time" in refusal.status.message


async def test_a_call_that_ends_without_a_message_is_an_invalid_argument(strict: Api) -> None:
    call = silent(strict.channel, GET_FLOW, metadata=bearer(strict.token("vera")))
    await call.done_writing()
    refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_a_stranger_is_refused_before_any_message_is_read(api: Api) -> None:
    refusal = await refused(silent(api.channel, GET_FLOW, timeout=PATIENCE))
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


def get_flow(api: Api, name: str) -> Any:
    return unary(api.channel, GET_FLOW)(b"\x0a\x20" + b"ab" * 16, metadata=bearer(api.token(name)), timeout=PATIENCE)


async def beyond(api: Api, *names: str) -> Refusal:
    """The refusal of the first of these callers' silent calls that is refused; the others end with it."""
    calls = [silent(api.channel, GET_FLOW, metadata=bearer(api.token(name))) for name in names]
    refusing = [asyncio.create_task(refused(call)) for call in calls]
    [first], others = await asyncio.wait(refusing, return_when=asyncio.FIRST_COMPLETED)
    for call in calls:
        call.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return first.result()


async def is_served(api: Api, name: str) -> bool:
    """Whether a call of this caller is admitted in the end."""
    answer = await eventually(lambda: refused(get_flow(api, name)), lambda refusal: refusal.reason != "LIMIT_EXCEEDED")
    return answer.reason == "FLOW_NOT_FOUND"


async def test_a_caller_has_a_share_of_calls_however_its_name_is_spelt(strict: Api) -> None:
    refusal = await beyond(strict, "vera", "Vera", "VERA")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert "has 2 calls in progress, the most it may have" in refusal.status.message
    assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.ToTimedelta() == timedelta(seconds=1)
    assert await is_served(strict, "vera")


async def test_all_callers_together_have_a_limit(strict: Api) -> None:
    refusal = await beyond(strict, "vera", "vera", "olga", "olga")
    assert refusal.reason == "LIMIT_EXCEEDED"
    assert "this server has 3 calls in progress" in refusal.status.message
    assert await is_served(strict, "pia")


async def test_watches_leave_calls_alone_and_one_caller_leaves_another_room(strict: Api, bus: NatsBus) -> None:
    await publish(bus, flows.start())
    watches = [watch_flow(strict, "vera") for _ in range(2)]
    for watch in watches:
        assert await watch.read()
    refusal = await refused(watch_flow(strict, "vera").read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert (await refused(get_flow(strict, "vera"))).reason == "FLOW_NOT_FOUND"
    other = watch_flow(strict, "olga")
    assert await other.read()
    for watch in (*watches, other):
        watch.cancel()


async def test_a_health_check_is_answered_beside_any_number_of_silent_ones(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, message_timeout=FOR_EVER) as api, AsyncExitStack() as stack:
        for _ in range(4):
            raw = await stack.enter_async_context(RawConnection(api.address))
            for _ in range(STRANGERS // 2):
                await raw.begin(CHECK)
        async with asyncio.timeout(PATIENCE):
            for _ in range(20):
                assert await health(api.channel) == SERVING


async def test_calls_of_one_method_that_wait_to_be_begun_leave_room_for_those_of_others(api: Api) -> None:
    async with AsyncExitStack() as stack:
        flood = [await stack.enter_async_context(RawConnection(api.address)) for _ in range(12)]
        for raw in flood:
            for _ in range(300):
                await raw.begin(LIST_FLOWS)
        async with asyncio.timeout(PATIENCE):
            others = await asyncio.gather(*(refused(get_flow(api, "vera")) for _ in range(100)))
            assert {other.reason for other in others} == {"FLOW_NOT_FOUND"}
            assert await health(api.channel) == SERVING


async def test_watches_of_health_are_bounded_and_take_nothing_from_others(api: Api) -> None:
    rpc: Any = api.channel.unary_stream(HEALTH_WATCH, request_serializer=as_is, response_deserializer=as_is)
    watches = [rpc(b"") for _ in range(HEALTH_WATCHES.each)]
    for watch in watches:
        assert await watch.read()
    refusal = await refused(rpc(b"").read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert await health(api.channel) == SERVING
    assert (await refused(get_flow(api, "vera"))).reason == "FLOW_NOT_FOUND"
    for watch in watches:
        watch.cancel()


async def test_who_watches_health_and_reads_nothing_holds_up_nobody(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path) as api, RawConnection(api.address, reads_nothing=True) as raw:
        for _ in range(3):
            await raw.begin(HEALTH_WATCH, message=b"")
        rpc: Any = api.channel.unary_stream(HEALTH_WATCH, request_serializer=as_is, response_deserializer=as_is)
        watch = rpc(b"")
        assert health_pb2.HealthCheckResponse.FromString(await watch.read()).status == SERVING
        async with asyncio.timeout(PATIENCE):
            for status, broken in ((NOT_SERVING, {"broker": "away"}), (SERVING, {}), (NOT_SERVING, {"broker": "away"})):
                await api.server.tell(broken)
                assert health_pb2.HealthCheckResponse.FromString(await watch.read()).status == status


async def test_responses_that_nobody_takes_count_as_calls_in_progress(strict: Api) -> None:
    token = strict.token("vera")
    async with RawConnection(strict.address, reads_nothing=True) as raw:
        for _ in range(6):
            await raw.begin(LIST_FLOWS, message=SCAN, more={"authorization": f"Bearer {token}"})
        assert await raw.received(b"calls in progress")
        # Long after the responses are there, the calls still count.
        for _ in range(30):
            assert (await refused(get_flow(strict, "vera"))).reason == "LIMIT_EXCEEDED"
            assert (await refused(get_flow(strict, "olga"))).reason == "FLOW_NOT_FOUND"
    await eventually(lambda: refused(get_flow(strict, "vera")), lambda refusal: refusal.reason == "FLOW_NOT_FOUND")


async def test_health_checks_whose_answers_nobody_takes_are_bounded_for_each_connection(api: Api) -> None:
    async with RawConnection(api.address, reads_nothing=True) as raw:
        for _ in range(CHECKS_OF_A_CONNECTION + 1):
            await raw.begin(CHECK, message=b"")
        assert await raw.received(b"calls in progress")
        assert await health(api.channel) == SERVING


async def test_connections_beyond_the_limit_are_closed_and_those_that_are_open_serve(
    bus: NatsBus, tmp_path: Path
) -> None:
    async with running_api(bus, tmp_path, connections=3) as api:
        assert await health(api.channel) == SERVING
        async with AsyncExitStack() as stack:
            for _ in range(2):
                raw = await stack.enter_async_context(RawConnection(api.address))
                await raw.begin(CHECK, message=b"")
                assert await raw.received(b"grpc-status")
            async with RawConnection(api.address) as too_many, asyncio.timeout(PATIENCE):
                assert not await too_many.received(b"grpc-status")
            assert await health(api.channel) == SERVING

        async def served() -> bool:
            try:
                async with RawConnection(api.address) as raw:
                    await raw.begin(CHECK, message=b"")
                    return await raw.received(b"grpc-status")
            except ConnectionError:  # closed before it was written to
                return False

        assert await eventually(served)


async def test_a_message_that_is_not_what_its_flag_says_is_refused_without_an_incident(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawConnection(api.address) as raw:
        for encoding in ("gzip", "identity"):
            more = {"grpc-encoding": encoding, "authorization": "Bearer x"}
            await raw.begin(CHECK, message=b"garbage", flags=1, more=more)
        assert await raw.received(b"grpc-status")
    assert await health(api.channel) == SERVING
    assert "failed unexpectedly" not in caplog.text


async def test_a_request_beyond_the_size_limit_is_refused(api: Api) -> None:
    call = unary(api.channel, GET_FLOW)(b"\x0a" * (2 << 20), metadata=bearer(api.token("vera")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_request_is_refused_before_it_is_inflated(api: Api) -> None:
    check = api.channel.unary_unary(
        CHECK,
        request_serializer=lambda size: b"\x0a" + b"\xff\xff\xff\x03" + b"x" * size,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    refusal = await refused(check(8 << 20, compression=grpc.Compression.Gzip))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
    assert await health(api.channel) == SERVING
