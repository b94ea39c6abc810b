"""The client by which the benchmark votes: it gets what any gRPC client gets."""

from __future__ import annotations

import asyncio

import pytest

from bench.unary import CallFailed, UnaryCalls
from handrail.v1.flow_service_pb2 import GetFlowRequest
from handrail.v1.identity_service_pb2 import WhoAmIRequest, WhoAmIResponse
from tests.support.api import Api, bearer

WHO_AM_I = "/handrail.v1.IdentityService/WhoAmI"
GET_FLOW = "/handrail.v1.FlowService/GetFlow"


async def test_many_calls_at_once_are_each_answered(api: Api) -> None:
    token = api.token("vera")
    expected = await api.call("IdentityService/WhoAmI", WhoAmIRequest(), WhoAmIResponse, metadata=bearer(token))
    calls = UnaryCalls(api.address, WHO_AM_I, token)
    for _ in range(3):
        answers = await asyncio.gather(*(calls.call(b"") for _ in range(50)))
        assert {WhoAmIResponse.FromString(answer).subject for answer in answers} == {expected.subject}
    calls.close()


async def test_a_refused_call_fails_and_the_next_one_is_answered_for_itself(api: Api) -> None:
    calls = UnaryCalls(api.address, GET_FLOW, api.token("vera"))
    for flow_id in ("ab" * 16, "cd" * 16):
        with pytest.raises(CallFailed, match=f"there is no flow {flow_id}"):
            await calls.call(GetFlowRequest(flow_id=flow_id).SerializeToString())
    calls.close()


async def test_a_lost_connection_fails_its_calls_and_the_next_call_connects_again(api: Api) -> None:
    calls = UnaryCalls(api.address, WHO_AM_I, api.token("vera"))
    assert await calls.call(b"")
    waiting = asyncio.create_task(calls.call(b""))
    await asyncio.sleep(0)
    calls.close()
    with pytest.raises(CallFailed, match="the connection is closed"):
        await waiting
    assert await calls.call(b"")
    calls.close()
