"""What the server says about itself: services with comments, health, channelz."""

import pytest

from handrail.coordinator.api.server import SERVICES
from tests.support.api import Api


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
