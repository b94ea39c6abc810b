"""grpc.health.v1.Health: the services of the API, and the parts of the installation that are broken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The stubs are older than the messages.
_ListResponse = health_pb2.HealthListResponse  # type: ignore[attr-defined]

PARTS = "handrail.part."
"""Before the name of a part that is, or was, broken: `handrail.part.stream.FLOW`."""


class HealthService(health.aio.HealthServicer):  # type: ignore[misc,name-defined]
    """What gRPC's own one does, and `List`."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._parts: set[str] = set()

    async def List(self, request: Message, context: Any) -> Message:
        """All there is to ask for: the services, and the parts that are or were broken."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        answer: Message = _ListResponse(statuses=statuses)
        return answer

    async def tell(self, broken: Iterable[str]) -> None:
        """Serving where nothing is broken; for every service alike, since none can do without a part."""
        broken = set(broken)
        self._parts |= broken
        for name in self._services:
            await self.set(name, NOT_SERVING if broken else SERVING)
        for part in self._parts:
            await self.set(PARTS + part, NOT_SERVING if part in broken else SERVING)
