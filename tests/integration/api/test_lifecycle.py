"""Beginning and end of a server: health, drain, ports, and a broker that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from handrail.coordinator.api.dev_tokens import KeyFiles, ensure_keys, mint
from handrail.coordinator.api.server import SERVICES, Server, ServerSettings
from handrail.coordinator.main import CoordinatorSettings, run_coordinator
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.v1.flow_service_pb2 import GetFlowRequest, GetFlowResponse
from tests.conftest import Connect
from tests.support.api import Api, bearer, refused, running_api
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE, eventually

NO_FLOW = "ab" * 16
"""The requested flow, which does not exist."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: grpc.aio.Channel, service: str = "") -> Any:
    rpc = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return rpc(health_pb2.HealthCheckRequest(service=service))


async def until_health(channel: grpc.aio.Channel, wanted: int) -> None:
    """Follow the health until it is as wanted."""
    call = watch_health(channel)
    async with asyncio.timeout(60):
        while (await call.read()).status != wanted:
            continue
    call.cancel()


async def until_pulling(bus: NatsBus) -> None:
    """Until the coordinator waits for messages on each of its durables: it has begun."""
    for stream, durable in (("FLOW", "decide"), ("FLOW", "track"), ("TIMER", "due")):
        asked = partial(bus.request_json, f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
        await eventually(asked, lambda info: info["num_waiting"])


def get_flow(channel: grpc.aio.Channel, token: str, **options: Any) -> Any:
    rpc = channel.unary_unary(
        "/handrail.v1.FlowService/GetFlow",
        request_serializer=GetFlowRequest.SerializeToString,
        response_deserializer=GetFlowResponse.FromString,
    )
    return rpc(GetFlowRequest(flow_id=NO_FLOW), metadata=bearer(token), **options)


@asynccontextmanager
async def running(bus: BusSettings, keys: KeyFiles) -> AsyncIterator[grpc.aio.Channel]:
    """A coordinator as `handrail coordinator` runs it, ended by a signal."""
    port = asyncio.get_running_loop().create_future()
    server = ServerSettings(address="127.0.0.1:0", public_keys=(keys.public,))
    settings = CoordinatorSettings(bus=bus, server=server, connect_timeout=timedelta())
    task = asyncio.create_task(run_coordinator(settings, on_ready=port.set_result))
    await asyncio.wait({task, port}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.result()}") as channel:
        yield channel
    os.kill(os.getpid(), signal.SIGTERM)  # the coordinator in this process takes it
    await task


async def test_every_service_is_unhealthy_until_the_streams_are_there(bus: NatsBus, tmp_path: Path) -> None:
    keys = ensure_keys(tmp_path)
    server = Server(Replica(bus, holder="t"), ServerSettings(address="127.0.0.1:0", public_keys=(keys.public,)))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for service in ("", *SERVICES):
            assert (await health(channel, service)).status == NOT_SERVING
        await server.set_serving(True)
        for service in ("", *SERVICES):
            assert (await health(channel, service)).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel, "nobody.v1.Knows")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await server.drain()


async def test_a_coordinator_runs_from_an_empty_broker_to_its_orderly_end(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    keys = ensure_keys(tmp_path)
    token = mint(keys.private, "vera")
    async with running(nats_server.settings(), keys) as channel:
        assert (await health(channel)).status == SERVING
        assert (await refused(get_flow(channel, token))).reason == "FLOW_NOT_FOUND"


async def test_a_broker_that_goes_away_is_told_to_callers_and_in_health(
    nats_server: NatsServer, connect: Connect, tmp_path: Path
) -> None:
    keys = ensure_keys(tmp_path)
    token = mint(keys.private, "vera")
    async with running(nats_server.settings(), keys) as channel:
        await until_pulling(await connect(nats_server.settings("admin")))
        nats_server.kill()
        refusal = await refused(get_flow(channel, token, timeout=PATIENCE))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE")
        await until_health(channel, NOT_SERVING)
        nats_server.start()
        await until_health(channel, SERVING)
        assert (await refused(get_flow(channel, token))).reason == "FLOW_NOT_FOUND"


async def test_no_broker_is_a_clear_error(tmp_path: Path) -> None:
    settings = BusSettings(servers=("nats://127.0.0.1:9",), name="coordinator", connect_timeout=timedelta(seconds=0.5))
    with pytest.raises(HandrailError) as caught:
        async with running(settings, ensure_keys(tmp_path)):
            pass
    assert caught.value.reason_name == "BROKER_UNAVAILABLE"


async def test_a_taken_port_is_a_clear_error(api: Api, bus: NatsBus, tmp_path: Path) -> None:
    settings = ServerSettings(address=api.address, public_keys=(api.keys.public,))
    with pytest.raises(OSError, match=f"can't listen on {api.address}: the port is taken"):
        await Server(Replica(bus, holder="second"), settings).start()


async def test_a_file_without_a_public_key_is_a_clear_error(bus: NatsBus, tmp_path: Path) -> None:
    keys = ensure_keys(tmp_path)
    for wrong in (keys.private, Path(__file__)):
        with pytest.raises(ValueError, match="holds no"):
            Server(Replica(bus, holder="t"), ServerSettings(address="127.0.0.1:0", public_keys=(wrong,)))


def watch_health(channel: grpc.aio.Channel) -> Any:
    rpc = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return rpc(health_pb2.HealthCheckRequest())


async def test_a_drain_lets_calls_under_way_finish_and_flips_health(
    bus: NatsBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_api(bus, tmp_path) as api:
        entered, released, ask = asyncio.Event(), asyncio.Event(), bus.last_on_leader

        async def slow(stream: str, subject_filter: str, **options: Any) -> Any:
            if NO_FLOW in subject_filter:
                entered.set()
                await released.wait()
            return await ask(stream, subject_filter, **options)

        monkeypatch.setattr(bus, "last_on_leader", slow)
        watch = watch_health(api.channel)
        assert (await watch.read()).status == SERVING
        call = asyncio.ensure_future(refused(get_flow(api.channel, api.token("vera"))))
        await entered.wait()
        draining = asyncio.create_task(api.server.drain())
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        released.set()
        assert (await call).reason == "FLOW_NOT_FOUND"
        await draining
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get_flow(api.channel, api.token("vera"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
