"""Strangers and greedy callers take what others need: streams, silent calls, reflection, the watch of health."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from handrail.v1.flow_service_pb2 import ListFlowsRequest, WatchFlowRequest
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from tests.attacks.attack import attack, succeeded
from tests.attacks.installation import Installation
from tests.support.api import bearer
from tests.support.people import People
from tests.support.raw_http2 import RawConnection

SOON = 1.5
"""Seconds that others may wait beside an attack, as the median of five: a machine of CI is slow and shared."""

_PER_CONNECTION = 128
_OWN_POOL = (("grpc.use_local_subchannel_pool", 1),)


@asynccontextmanager
async def begun(target: Installation, method: str, calls: int, *, message: bytes | None) -> AsyncIterator[None]:
    """So many calls without a token, each with one message or silent."""
    async with AsyncExitStack() as stack:
        for first in range(0, calls, _PER_CONNECTION):
            raw = await stack.enter_async_context(RawConnection(target.address))
            for _ in range(min(_PER_CONNECTION, calls - first)):
                await raw.begin(method, message=message)
        yield


async def others(target: Installation, people: People) -> str:
    """How a probe and a caller fare at this moment; raises Succeeded if they do not."""
    seconds = {
        "Health.Check": await median(lambda: probe(target)),
        "ListFlows": await median(
            lambda: people.flows.ListFlows(ListFlowsRequest(scan=True), metadata=people.by("vera"))
        ),
    }
    told = ", ".join(f"{name} answers in {each:.3f} s" for name, each in seconds.items())
    if max(seconds.values()) > SOON:
        succeeded(told)
    return told


async def median(call: Callable[[], Awaitable[object]]) -> float:
    """The median of five calls, one after the other, in seconds; raises Succeeded if one is refused."""
    loop, taken = asyncio.get_running_loop(), []
    for _ in range(5):
        begins = loop.time()
        try:
            async with asyncio.timeout(30):
                await call()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            succeeded(f"others are refused: {error!r}")
        taken.append(loop.time() - begins)
    return statistics.median(taken)


async def probe(target: Installation) -> None:
    """Asks for the health over a connection of its own, as Kubernetes does."""
    async with grpc.aio.insecure_channel(target.address, options=_OWN_POOL) as channel:
        answer = await health(channel).Check(health_pb2.HealthCheckRequest())
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            succeeded("the coordinator is not serving")


def health(channel: grpc.aio.Channel) -> Any:
    """The stub of the health service; its types lag behind."""
    return HealthStub(channel)


async def codes(calls: list[Any]) -> Counter[str]:
    """How the first answers of these streams end, by code; OK if there is an answer."""

    async def first(call: Any) -> str:
        try:
            async with asyncio.timeout(20):
                await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    return Counter(await asyncio.gather(*map(first, calls)))


@attack("29", "1,100 Health.Watch streams without a token shut others out", mutant="p7_strangers_share_no_limit")
async def watch_health(target: Installation) -> str:
    """A stranger holds watches of the health."""
    async with target.people() as people, begun(target, "/grpc.health.v1.Health/Watch", 1_100, message=b""):
        async with grpc.aio.insecure_channel(target.address, options=_OWN_POOL) as channel:
            seen = await codes([health(channel).Watch(health_pb2.HealthCheckRequest())])
        if seen["OK"]:
            succeeded("one more watch is taken")
        return f"one more watch is told {next(iter(seen))}; {await others(target, people)}"


@attack("30", "1,100 silent calls without a token shut others out", mutant="p7_a_silent_call_stays_open")
async def stay_silent(target: Installation) -> str:
    """A stranger begins calls and sends no message."""
    told = []
    async with target.people() as people:
        for method in ("/handrail.v1.FlowService/ListFlows", "/grpc.health.v1.Health/Check"):
            async with begun(target, method, 1_100, message=None):
                told.append(f"{method.rpartition('/')[2]}: {await others(target, people)}")
    return "; ".join(told)


@attack("31", "995 WatchFlow streams by one caller without a role", mutant="p7_one_caller_takes_every_stream")
async def watch_flows(target: Installation) -> str:
    """A caller holds as many watches as it gets, over several connections."""
    async with target.people() as people, AsyncExitStack() as stack:
        flow_id = await target.flow_from_start(people)
        mallory, calls = bearer(target.token("mallory")), []
        for first in range(0, 995, 100):
            channel = grpc.aio.insecure_channel(target.address, options=_OWN_POOL)
            await stack.enter_async_context(channel)
            watch = FlowServiceStub(channel).WatchFlow
            calls += [watch(WatchFlowRequest(flow_id=flow_id), metadata=mallory) for _ in range(min(100, 995 - first))]
        seen = await codes(calls)
        if seen["OK"] > 32 or not seen["RESOURCE_EXHAUSTED"]:
            succeeded(str(seen))
        return f"{seen['OK']} are taken, {seen['RESOURCE_EXHAUSTED']} refused; {await others(target, people)}"


@attack("57", "four streams of reflection without a token make others wait", mutant="p7_reflection_answers_for_ever")
async def reflect(target: Installation) -> str:
    """A stranger asks for the largest contracts again and again, and for those of the business."""
    async with target.people() as people, AsyncExitStack() as stack:
        asking = []
        for _ in range(4):
            channel = grpc.aio.insecure_channel(target.address, options=_OWN_POOL)
            asking.append(asyncio.create_task(_ask(await stack.enter_async_context(channel))))
        try:
            told = await others(target, people)
        finally:
            for each in asking:
                each.cancel()
        async with target.channel() as channel:
            business = ServerReflectionRequest(file_containing_symbol="payments.v1.ChargebackReceived")
            async for answer in _reflection(channel)(iter([business])):
                if answer.HasField("file_descriptor_response"):
                    succeeded("a stranger reads the contracts of the business")
        return f"a stranger sees no contract of a template; {told}"


async def _ask(channel: grpc.aio.Channel) -> None:
    largest = ServerReflectionRequest(file_containing_symbol="handrail.v1.FlowService")
    while True:
        try:
            async for _ in _reflection(channel)(iter([largest] * 200)):
                pass
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise


def _reflection(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
