"""Probes whether a coordinator is serving."""

from __future__ import annotations

from datetime import timedelta

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub


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
