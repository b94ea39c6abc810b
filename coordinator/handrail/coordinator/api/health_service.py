"""grpc.health.v1.Health: the services of the API, and the parts of the installation that are broken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The type stubs lag behind the messages.
_ListResponse = health_pb2.HealthListResponse  # type: ignore[attr-defined]

PARTS = "handrail.part."
"""The prefix of the name of a part that is or was broken: `handrail.part.stream.FLOW`."""


class HealthService(health.aio.HealthServicer):  # type: ignore[misc,name-defined]
    """gRPC's own health servicer, plus `List`."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._parts: set[str] = set()

    async def List(self, request: Message, context: Any) -> Message:
        """Lists everything that can be checked: the services, and the parts that are or were broken."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        answer: Message = _ListResponse(statuses=statuses)
        return answer

    async def tell(self, broken: Iterable[str]) -> None:
        """Serves if nothing is broken; the same for every service, because each needs every part."""
        broken = set(broken)
        self._parts |= broken
        for name in self._services:
            await self.set(name, NOT_SERVING if broken else SERVING)
        for part in self._parts:
            await self.set(PARTS + part, NOT_SERVING if part in broken else SERVING)
