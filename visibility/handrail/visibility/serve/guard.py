"""Around every call: who does not know the secret is refused, and errors become statuses with their reason."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
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


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Lets those in who know the secret. Unary calls only."""

    def __init__(self, secret: SharedSecret) -> None:
        self._secret = secret

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
        behaviour = _guarded(cast("_Behaviour", handler.unary_unary))
        return _handler(behaviour, handler.request_deserializer, handler.response_serializer)


_handler: Callable[..., _Handler] = grpc.unary_unary_rpc_method_handler


def _guarded(behaviour: _Behaviour) -> _Behaviour:
    async def serve(request: object, context: _Context) -> object:
        try:
            return await behaviour(request, context)
        except HandrailError as error:
            raised = error
        except Exception:
            incident = token_hex(8)
            log.exception("incident %s: a question failed unexpectedly", incident)
            text = f"something unexpected happened; the log of visibility has it as incident {incident}"
            raised = HandrailError(ErrorReason.ERROR_REASON_INTERNAL, text, incident=incident)
        await _abort(context, raised)

    return serve


async def _refuse(request: object, context: _Context) -> None:
    log.warning("a call from %s does not carry the secret", clean(str(context.peer())))
    text = "the secret is missing or wrong"
    await _abort(context, HandrailError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, text))


async def _unknown(request: object, context: _Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this release of visibility knows no such method")


async def _abort(context: _Context, error: HandrailError) -> NoReturn:
    info = Packed()
    info.Pack(ErrorInfo(reason=error.reason_name, domain=_DOMAIN, metadata=error.metadata))
    code = _CODES.get(error.reason, grpc.StatusCode.INTERNAL)
    status = Status(code=code.value[0], message=error.text, details=[info])
    await context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]
    raise AssertionError("abort_with_status raises")
