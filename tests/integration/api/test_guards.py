"""What surrounds every RPC, around handlers that misbehave: on a real server, over real channels."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Protocol

import grpc
import grpc.aio
import pytest

from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.guards import ContractGuard, DeadlineGuard, ErrorGuard
from handrail.coordinator.api.interceptors import Around, Interceptors
from handrail.coordinator.api.receiving import Receiving
from handrail.coordinator.api.rpc_tracing import Tracing
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import GetFlowRequest, GetFlowResponse
from tests.support.api import EOF, refused
from tests.support.waiting import PATIENCE, until

FLOW_ID = "ab" * 16
Handler = Callable[[Any, Any], Any]
SOON = timedelta(milliseconds=300)


class Serve(Protocol):
    """Serves one handler, unary or streaming, behind the guards; gives a channel.

    A call without a deadline gets `default`.
    """

    async def __call__(self, handler: Handler, *, default: timedelta = timedelta(seconds=PATIENCE)) -> grpc.aio.Channel:
        """Serves it."""


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[grpc.aio.Server] = []
    channels: list[grpc.aio.Channel] = []

    async def started(handler: Handler, *, default: timedelta = timedelta(seconds=PATIENCE)) -> grpc.aio.Channel:
        arounds: list[Around] = [
            Tracing(),
            ErrorGuard(),
            Receiving(),
            DeadlineGuard(default=default, floor=timedelta(milliseconds=50), longer={}),
            ContractGuard(),
        ]
        server = grpc.aio.server(interceptors=[Interceptors(arounds)])
        servers.append(server)
        codec = {"request_deserializer": GetFlowRequest.FromString, "response_serializer": _serialize}
        handlers = {
            "One": grpc.unary_unary_rpc_method_handler(handler, **codec),
            "Many": grpc.unary_stream_rpc_method_handler(handler, **codec),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        return channels[-1]

    yield started
    for channel in channels:
        await channel.close(None)
    for server in servers:
        await server.stop(0)


def _serialize(response: Any) -> bytes:
    serialized: bytes = response.SerializeToString()
    return serialized


def one(channel: grpc.aio.Channel, **options: Any) -> Any:
    rpc = channel.unary_unary(
        "/test.Service/One",
        request_serializer=GetFlowRequest.SerializeToString,
        response_deserializer=GetFlowResponse.FromString,
    )
    return rpc(GetFlowRequest(flow_id=FLOW_ID), **options)


def many(channel: grpc.aio.Channel) -> Any:
    rpc = channel.unary_stream(
        "/test.Service/Many",
        request_serializer=GetFlowRequest.SerializeToString,
        response_deserializer=GetFlowResponse.FromString,
    )
    return rpc(GetFlowRequest(flow_id=FLOW_ID))


async def test_an_unexpected_error_shows_an_id_and_nothing_of_itself(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Any, context: Any) -> Any:
        raise KeyError("secret")

    channel = await serve(handler)
    with caplog.at_level(logging.ERROR, logger="handrail"):
        refusal = await refused(one(channel))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in str(refusal.status)
    assert "KeyError" not in str(refusal.status)
    incident = refusal.info.metadata["incident"]
    assert incident in caplog.text
    assert "secret" in caplog.text


async def test_an_error_in_the_middle_of_a_stream_reaches_the_caller_behind_what_was_sent(serve: Serve) -> None:
    async def handler(request: Any, context: Any) -> Any:
        yield GetFlowResponse()
        raise HandrailError(ErrorReason.ERROR_REASON_FLOW_BUSY, "held elsewhere")

    call = many(await serve(handler))
    assert await call.read() == GetFlowResponse()
    refusal = await refused(call.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "FLOW_BUSY")


async def test_a_call_without_a_deadline_gets_the_default_one(serve: Serve) -> None:
    async def handler(request: Any, context: Any) -> Any:
        assert time_left(timedelta(hours=1)) < SOON
        await asyncio.Event().wait()

    refusal = await refused(one(await serve(handler, default=SOON)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_deadline_that_is_too_short_is_refused_before_anything_runs(serve: Serve) -> None:
    ran = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        ran.set()
        return GetFlowResponse()

    channel = await serve(handler)
    assert await one(channel, timeout=10) == GetFlowResponse()
    ran.clear()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await one(channel, timeout=0.04)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not ran.is_set()


async def test_a_timeout_inside_a_handler_is_not_taken_for_the_deadline(serve: Serve) -> None:
    async def handler(request: Any, context: Any) -> Any:
        raise TimeoutError("of something else")

    refusal = await refused(one(await serve(handler)))
    assert refusal.reason == "INTERNAL"


async def test_a_stream_outlives_the_default_deadline(serve: Serve) -> None:
    passed = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        assert time_left(timedelta(hours=1)) == timedelta(hours=1)
        yield GetFlowResponse()
        await passed.wait()
        yield GetFlowResponse()

    call = many(await serve(handler, default=SOON))
    await call.read()
    await asyncio.sleep(SOON.total_seconds() + 0.1)
    passed.set()
    assert await call.read() == GetFlowResponse()
    assert await call.read() is EOF


async def test_a_cancelled_call_ends_its_handler(serve: Serve) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        yield GetFlowResponse()

    call = many(await serve(handler))
    await began.wait()
    assert call.cancel()
    await until(ended.is_set)
    assert call.cancelled()
