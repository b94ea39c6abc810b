"""Bytes that are no request are refused like any other request that is wrong, whatever the kind of the RPC."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from handrail.v1 import flow_service_pb2 as flow_pb
from handrail.v1 import template_service_pb2 as template_pb
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.api import Api, bearer, refused

GARBAGE = b"\xff\xff\xff"


def as_is(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("method", ["FlowService/GetFlow", "FlowService/StartFlow", "ApprovalService/ListApprovals"])
async def test_a_malformed_request_is_an_invalid_argument(
    api: Api, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    call: Any = api.channel.unary_unary(f"/handrail.v1.{method}", request_serializer=as_is, response_deserializer=as_is)
    refusal = await refused(call(GARBAGE, metadata=bearer(api.token("stan", "starter"))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert "the request (3 bytes) can't be parsed as its message type" in refusal.status.message
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_who_is_not_known_is_told_that_first(api: Api) -> None:
    call: Any = api.channel.unary_unary(
        "/handrail.v1.FlowService/GetFlow", request_serializer=as_is, response_deserializer=as_is
    )
    assert (await refused(call(GARBAGE))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_malformed_request_of_a_watch_is_an_invalid_argument(api: Api) -> None:
    rpc: Any = api.channel.unary_stream(
        "/handrail.v1.FlowService/WatchFlow", request_serializer=as_is, response_deserializer=as_is
    )
    refusal = await refused(rpc(GARBAGE, metadata=bearer(api.token("vera"))).read())
    assert (refusal.code, refusal.status.code) == (grpc.StatusCode.INVALID_ARGUMENT, 3)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_a_malformed_message_among_many_is_an_invalid_argument(api: Api, version: str) -> None:
    rpc: Any = api.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=as_is,
        response_deserializer=as_is,
    )
    call = rpc()
    await call.write(GARBAGE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_all_services_are_listed_with_their_health(api: Api) -> None:
    rpc: Any = api.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=as_is,
        response_deserializer=health_pb2.HealthListResponse.FromString,  # type: ignore[attr-defined]
    )
    statuses = (await rpc(b"")).statuses
    assert {"", "handrail.v1.FlowService", "handrail.v1.QuarantineService"} <= set(statuses)
    assert {each.status for each in statuses.values()} == {health_pb2.HealthCheckResponse.SERVING}


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_800, -62_135_596_801])
async def test_a_time_that_is_none_is_an_invalid_argument(api: Api, seconds: int) -> None:
    moment = Timestamp(seconds=seconds)
    requests: dict[str, Message] = {
        "FlowService/GetFlow": flow_pb.GetFlowRequest(flow_id="a" * 32, as_of_time=moment),
        "FlowService/ListDivergences": flow_pb.ListDivergencesRequest(since=moment),
        "FlowService/ListFailures": flow_pb.ListFailuresRequest(since=moment),
        "TemplateService/ReplayPolicy": template_pb.ReplayPolicyRequest(since=moment, until=moment),
    }
    for method, request in requests.items():
        streams = method.endswith("ReplayPolicy")
        kind = api.channel.unary_stream if streams else api.channel.unary_unary
        rpc: Any = kind(f"/handrail.v1.{method}", request_serializer=as_is, response_deserializer=as_is)
        call = rpc(request.SerializeToString(), metadata=bearer(api.token("olga", "operator")))
        refusal = await refused(call.read() if streams else call)
        assert (method, refusal.code) == (method, grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_duration_that_is_none_is_an_invalid_argument(api: Api) -> None:
    template = FlowTemplate(name="a", version=1, deadline=Duration(seconds=2**62))
    template.steps.add(name="s", agent="a", timeout=Duration(seconds=1, nanos=-1))
    call = api.call(
        "TemplateService/CheckTemplate",
        template_pb.CheckTemplateRequest(template=template),
        template_pb.CheckTemplateResponse,
        metadata=bearer(api.token("olga", "operator")),
    )
    refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    named = {each.field for each in refusal.detail(error_details_pb2.BadRequest).field_violations}
    assert {"template.deadline", "template.steps[0].timeout"} <= named
