"""What happens around every RPC, in one shape for unary and streaming RPCs.

grpc.aio requires an interceptor to unpack a handler and build a new one. That happens once, here: an `Around` is an
async context manager that is entered before the handler runs and left when it is done.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

Request: TypeAlias = object
"""The request message, or an iterator of them if the RPC streams requests."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[[Any, Context], Any]


@dataclass(slots=True)
class Call:
    """One RPC: its full path, its text metadata, and whether it streams responses.

    `error` is the error that its caller gets instead of a response, once one is known.
    """

    method: str
    metadata: Mapping[str, str]
    streams: bool
    context: Context
    error: HandrailError | None = None


@dataclass(frozen=True, slots=True)
class MalformedRequest:
    """A placeholder for a request whose bytes can't be parsed as its type; `ContractGuard` refuses it."""

    size: int
    error: str


class Around(Protocol):
    """Surrounds every RPC."""

    def around(self, request: Request, call: Call) -> AbstractAsyncContextManager[None]:
        """Is entered before the handler runs and left when it is done; an error on entry prevents the handler."""


class Interceptors(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Puts every `Around` around every RPC, the first one outermost."""

    def __init__(self, arounds: Sequence[Around]) -> None:
        self._arounds = tuple(arounds)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Called by grpc.aio for every RPC, to find its handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # Unknown method: grpc.aio accepts None here, although its stub says otherwise, and answers UNIMPLEMENTED.
            return cast("Handler", None)
        return self._wrapped(handler, handler_call_details.method)

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        shape = (handler.request_streaming, handler.response_streaming)
        name = f"{'stream' if shape[0] else 'unary'}_{'stream' if shape[1] else 'unary'}"
        behaviour: Behaviour = getattr(handler, name)
        if handler.request_streaming:
            behaviour = _refusing(behaviour)
        serve = self._streaming(behaviour, method) if handler.response_streaming else self._unary(behaviour, method)
        make: Callable[..., Handler] = getattr(grpc, f"{name}_rpc_method_handler")
        return make(serve, _lenient(handler.request_deserializer), handler.response_serializer)

    def _unary(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def serve(request: Request, context: Context) -> object:
            async with AsyncExitStack() as stack:
                call = Call(method, _metadata(context), streams=False, context=context)
                await self._enter(stack, request, call)
                response: object = await behaviour(request, context)
            return response

        return serve

    def _streaming(self, behaviour: Behaviour, method: str) -> Behaviour:
        # A coroutine that writes, not a generator: every `Around` then enters and exits in the RPC's own task.
        async def serve(request: Request, context: Context) -> None:
            async with AsyncExitStack() as stack:
                await self._enter(stack, request, Call(method, _metadata(context), streams=True, context=context))
                if not inspect.isasyncgenfunction(behaviour):
                    await behaviour(request, context)
                    return
                answers: AsyncGenerator[object, None] = behaviour(request, context)
                async with aclosing(answers):
                    async for response in answers:
                        await context.write(response)

        return serve

    async def _enter(self, stack: AsyncExitStack, request: Request, call: Call) -> None:
        for around in self._arounds:
            await stack.enter_async_context(around.around(request, call))


def _lenient(deserializer: Callable[[bytes], object] | None) -> Callable[[bytes], object] | None:
    """Keeps grpc.aio from reporting a deserializer's error as UNKNOWN, "Unexpected …", with a full stack in the log."""
    if deserializer is None:
        return None

    def read(data: bytes) -> object:
        try:
            return deserializer(data)
        except DecodeError as error:
            return MalformedRequest(len(data), str(error))

    return read


def _refusing(behaviour: Behaviour) -> Behaviour:
    """Wraps a handler of streamed requests: a request that can't be read ends the call."""

    async def readable(requests: AsyncIterator[object]) -> AsyncIterator[object]:
        async for request in requests:
            if isinstance(request, MalformedRequest):
                raise malformed(request)
            yield request

    if inspect.isasyncgenfunction(behaviour):

        async def answers(requests: AsyncIterator[object], context: Context) -> AsyncGenerator[object, None]:
            async for answer in behaviour(readable(requests), context):
                yield answer

        return answers

    async def serve(requests: AsyncIterator[object], context: Context) -> object:
        return await behaviour(readable(requests), context)

    return serve


def malformed(request: MalformedRequest) -> HandrailError:
    """Returns the error for a request that can't be parsed."""
    return HandrailError(
        ErrorReason.ERROR_REASON_MALFORMED,
        f"the request ({request.size} bytes) can't be parsed as its message type: {request.error}",
    )


def _metadata(context: Context) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}
