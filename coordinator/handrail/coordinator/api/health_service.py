"""grpc.health.v1.Health: the services of the API, and the parts of the installation that are broken.

Not grpcio's own servicer: it holds a lock while it writes to a watcher, so that a watcher that reads nothing keeps
the health of everybody from changing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The type stubs lag behind the messages.
_ListResponse = health_pb2.HealthListResponse  # type: ignore[attr-defined]

PARTS = "handrail.part."
"""The prefix of the name of a part that is or was broken: `handrail.part.stream.FLOW`."""

Status: TypeAlias = int

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HealthService(HealthServicer):
    """Health as `tell` last told it; nothing that a caller does delays a change."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = ("", *services)
        self._parts: set[str] = set()
        self._shut_down = False
        self._statuses: Mapping[str, Status] = dict.fromkeys(self._services, NOT_SERVING)
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        """Returns the status of a service or part; NOT_FOUND if there is none of this name."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "neither a service nor a part that was ever broken")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Message, context: _Context) -> Message:
        """Lists everything that can be checked: the services, and the parts that are or were broken."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        answer: Message = _ListResponse(statuses=statuses)
        return answer

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Yields the status of a service or part, and each change; ends once the server shuts down."""
        told = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            if self._shut_down:
                return
            await changed.wait()

    def tell(self, broken: Iterable[str], noticed: Iterable[str] = ()) -> None:
        """Serves if nothing is broken; the same for every service, because each needs every part.

        What is `noticed` is listed like a broken part, and breaks no service.
        """
        broken = frozenset(broken)
        listed = broken.union(noticed)
        self._parts |= listed
        services = dict.fromkeys(self._services, NOT_SERVING if broken else SERVING)
        self._change(services | {PARTS + part: NOT_SERVING if part in listed else SERVING for part in self._parts})

    def shut_down(self) -> None:
        """Reports NOT_SERVING for good; `tell` changes nothing afterwards, and watches end."""
        self._change(dict.fromkeys(self._statuses, NOT_SERVING))
        self._shut_down = True

    def _change(self, statuses: Mapping[str, Status]) -> None:
        if self._shut_down:
            return
        self._statuses = statuses
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
