"""What the server says about itself: services with comments, health, channelz."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from handrail.coordinator.api.reflection import MAX_ANSWER_BYTES
from handrail.coordinator.api.reflection import SERVICES as REFLECTION
from handrail.coordinator.api.server import SERVICES
from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.api import Api, refused, running_api


async def test_grpcurl_lists_every_service(api: Api) -> None:
    listed = await api.grpcurl("list")
    assert listed.code == 0, listed.err
    names = listed.out.split()
    assert {*SERVICES, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= set(names)
    assert {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= set(names)
    for name in names:
        methods = await api.grpcurl("list", name)
        assert methods.code == 0, methods.err
        assert methods.out.split()


@pytest.mark.parametrize("service", SERVICES)
async def test_grpcurl_describes_a_service_with_its_comments(api: Api, service: str) -> None:
    described = await api.grpcurl("describe", service)
    assert described.code == 0, described.err
    lines = [line.strip() for line in described.out.splitlines()]
    declared = [number for number, line in enumerate(lines) if line.startswith(("service ", "rpc "))]
    assert len(declared) > 1
    assert all(lines[number - 1].startswith("// ") for number in declared)


async def test_grpcurl_describes_a_message_with_its_rules(api: Api) -> None:
    described = await api.grpcurl("describe", "handrail.v1.CancelFlowRequest")
    assert described.code == 0, described.err
    assert "// reason says why, for people." in described.out
    assert "min_len" in described.out


STORED = "payments.v1.ChargebackReceived"


@pytest.mark.parametrize(
    "contracts,stranger,known", [("token", False, True), ("open", True, True), ("off", False, False)]
)
async def test_the_contracts_of_stored_templates_are_shown_to_whom_the_setting_says(
    bus: NatsBus, tmp_path: Path, contracts: str, stranger: bool, known: bool
) -> None:
    async with running_api(bus, tmp_path, reflected_contracts=contracts) as api:
        await api.replica.catalog.put(flows.stored(flows.template()))
        assert ((await api.grpcurl("describe", STORED)).code == 0) is stranger
        assert ((await api.grpcurl("describe", STORED, token=api.token("vera"))).code == 0) is known
        assert (await api.grpcurl("describe", "handrail.v1.FlowService")).code == 0


async def test_a_token_that_is_not_valid_is_refused_and_not_taken_for_none(api: Api) -> None:
    described = await api.grpcurl("describe", "handrail.v1.FlowService", token="x.y.z")
    assert described.code != 0
    assert "Unauthenticated" in described.err


async def test_one_call_is_answered_with_a_bounded_number_of_bytes(api: Api) -> None:
    rpc: Any = api.channel.stream_stream(
        f"/{REFLECTION[0]}/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    call, received = rpc(), 0

    async def ask_on() -> None:
        nonlocal received
        for _ in range(100):
            await call.write(ServerReflectionRequest(file_containing_symbol="handrail.v1.FlowService"))
            received += (await call.read()).ByteSize()

    refusal = await refused(ask_on())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert "open another one" in refusal.status.message
    assert MAX_ANSWER_BYTES // 2 < received <= MAX_ANSWER_BYTES


async def test_a_quiet_call_ends_and_the_next_one_is_answered(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, message_timeout=timedelta(seconds=0.2)) as api:
        rpc: Any = api.channel.stream_stream(
            f"/{REFLECTION[0]}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        refusal = await refused(rpc().read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert (await api.grpcurl("list")).code == 0
