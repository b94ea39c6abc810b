"""Calls to the coordinator, each with the token of the person who looks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import TypeVar

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status

from handrail.v1.act_service_pb2_grpc import ActServiceStub
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from handrail.v1.identity_service_pb2_grpc import IdentityServiceStub
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")

_MAX_RESPONSE_BYTES = 16 << 20
_PLAIN = ("grpc.enable_http_proxy", 0)  # a proxy of the environment would get the tokens
_OPTIONS = (("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES), ("grpc.keepalive_time_ms", 30_000))


class CallFailed(Exception):
    """A call failed. `text` is the coordinator's, for people; `reason` is an ErrorReason without prefix, or empty."""

    def __init__(self, code: grpc.StatusCode, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.reason = reason


class Coordinator:
    """A connection to one coordinator address. Failed calls raise CallFailed."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None, *, timeout: timedelta) -> None:
        self._timeout = timeout.total_seconds()
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, (*_OPTIONS, _PLAIN))
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, _OPTIONS)
        self.flows = FlowServiceStub(self._channel)
        self.identity = IdentityServiceStub(self._channel)
        self.templates = TemplateServiceStub(self._channel)
        self.approvals = ApprovalServiceStub(self._channel)
        self.delegations = DelegationServiceStub(self._channel)
        self.acts = ActServiceStub(self._channel)
        self.quarantine = QuarantineServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    async def close(self) -> None:
        """Ends all calls and the connection."""
        await self._channel.close(None)

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, token: str
    ) -> Response:
        """Calls a unary method as the bearer of this token."""
        try:
            return await method(request, timeout=self._timeout, metadata=_metadata(token))
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None

    async def health(self, *, token: str) -> Mapping[str, bool]:
        """Whether each service, and each part that is or was broken, serves, by its name."""
        # The type stubs lag behind the messages.
        listed = await self.call(self._health.List, health_pb2.HealthListRequest(), token=token)  # type: ignore[attr-defined]
        serving = health_pb2.HealthCheckResponse.SERVING
        return {name: each.status == serving for name, each in listed.statuses.items()}

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, token: str
    ) -> AsyncGenerator[Response, None]:
        """Calls a streaming method, without a deadline. The call ends with the iteration."""
        call = method(request, metadata=_metadata(token))
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None
        finally:
            call.cancel()


def _metadata(token: str) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(("authorization", f"Bearer {token}"))


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return CallFailed(error.code(), error.details() or "", info.reason)
    return CallFailed(error.code(), error.details() or "")
