"""Asks a coordinator about its health, over gRPC."""

from __future__ import annotations

from datetime import timedelta

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

# The type stubs lag behind the message.
_ListRequest = health_pb2.HealthListRequest  # type: ignore[attr-defined]

_PARTS = "handrail.part."
"""The prefix of part names in the answers of `Health.List`; see docs/operations.md."""


def serves(channel: grpc.Channel, timeout: timedelta) -> bool:
    """Tells whether the coordinator behind a channel answers and is serving."""
    request = health_pb2.HealthCheckRequest()
    try:
        answer: health_pb2.HealthCheckResponse = HealthStub(channel).Check(  # type: ignore[attr-defined]
            request, timeout=timeout.total_seconds()
        )
    except grpc.RpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def reported_parts(channel: grpc.Channel, timeout: timedelta) -> list[str]:
    """Returns the parts that the coordinator reports, such as broken ones; empty if it does not answer."""
    try:
        answer = HealthStub(channel).List(_ListRequest(), timeout=timeout.total_seconds())  # type: ignore[attr-defined]
    except grpc.RpcError:
        return []
    return sorted(
        name.removeprefix(_PARTS)
        for name, each in answer.statuses.items()
        if name.startswith(_PARTS) and each.status != health_pb2.HealthCheckResponse.SERVING
    )
