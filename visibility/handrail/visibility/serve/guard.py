"""Around every call: who does not know the secret is refused, and errors become statuses with their reason.

grpc.aio reads the message of a unary request before it calls any code of ours, and waits for it without a limit. So
every call is served in the shape of a streamed request, which is the same on the wire: who is refused is refused at
once, and the message of the others is awaited for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from secrets import token_hex
from typing import Any, NoReturn, TypeAlias, cast

import grpc.aio
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean
from handrail.mesh.shared_secret import METADATA, SharedSecret
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Behaviour: TypeAlias = Callable[[object, _Context], Awaitable[object]]

_CODES: Mapping[ErrorReason.ValueType, grpc.StatusCode] = {
    ErrorReason.ERROR_REASON_BAD_FILTER: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.ERROR_REASON_CONTRACT_VIOLATION: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.ERROR_REASON_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.ERROR_REASON_ARCHIVE_DAMAGED: grpc.StatusCode.DATA_LOSS,
    ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The gRPC code of each reason; INTERNAL for others."""

_DOMAIN = "handrail"

AT_ONCE = 64
"""The most calls in progress that carry the secret. More are refused at once."""

MESSAGE_WITHIN = timedelta(seconds=10)
"""How long the message of such a call may take."""


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Lets those in who know the secret, `at_once` of them. Unary calls only."""

    def __init__(
        self, secret: SharedSecret, *, at_once: int = AT_ONCE, message_within: timedelta = MESSAGE_WITHIN
    ) -> None:
        self._secret = secret
        self._at_once = at_once
        self._message_within = message_within
        self._in_progress = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Called by grpc.aio for every call, before anything of it is read."""
        given = dict(handler_call_details.invocation_metadata or ()).get(METADATA, "")
        if not self._secret.admits(given):
            return _handler(_refuse)
        handler = await continuation(handler_call_details)
        if handler is None:
            return _handler(_unknown)
        behaviour = self._admitted(cast("_Behaviour", handler.unary_unary))
        return _handler(behaviour, handler.request_deserializer, handler.response_serializer)

    def _admitted(self, behaviour: _Behaviour) -> _Behaviour:
        async def serve(_: object, context: _Context) -> object:
            if self._in_progress >= self._at_once:
                text = f"{self._at_once} questions are in progress"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            self._in_progress += 1
            try:
                return await self._answered(behaviour, context)
            finally:
                self._in_progress -= 1

        return serve

    async def _answered(self, behaviour: _Behaviour, context: _Context) -> object:
        try:
            return await behaviour(await self._message(context), context)
        except HandrailError as error:
            raised = error
        except Exception:
            incident = token_hex(8)
            log.exception("incident %s: a question failed unexpectedly", incident)
            text = f"something unexpected happened; the log of visibility has it as incident {incident}"
            raised = HandrailError(ErrorReason.ERROR_REASON_INTERNAL, text, incident=incident)
        await _abort(context, raised)

    async def _message(self, context: _Context) -> object:
        try:
            async with asyncio.timeout(self._message_within.total_seconds()):
                message: object = await context.read()
        except TimeoutError:
            text = "the message of the call did not come in time"
            raise HandrailError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, text) from None
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise HandrailError(ErrorReason.ERROR_REASON_CONTRACT_VIOLATION, "the call has no message")
        return message


_handler: Callable[..., _Handler] = grpc.stream_unary_rpc_method_handler


async def _refuse(_: object, context: _Context) -> None:
    log.warning("a call from %s does not carry the secret", clean(str(context.peer())))
    text = "the secret is missing or wrong"
    await _abort(context, HandrailError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, text))


async def _unknown(_: object, context: _Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this release of visibility knows no such method")


async def _abort(context: _Context, error: HandrailError) -> NoReturn:
    info = Packed()
    info.Pack(ErrorInfo(reason=error.reason_name, domain=_DOMAIN, metadata=error.metadata))
    code = _CODES.get(error.reason, grpc.StatusCode.INTERNAL)
    status = Status(code=code.value[0], message=error.text, details=[info])
    await context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]
    raise AssertionError("abort_with_status raises")
