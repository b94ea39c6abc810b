"""What happens around every RPC, in one shape for unary and streaming RPCs.

grpc.aio requires an interceptor to unpack a handler and build a new one. That happens once, here: an `Around` is an
async context manager that is entered before the handler runs and left when it is done.

grpc.aio reads the message of a unary request before it calls any code of ours, and waits for it without a limit. So
every RPC is served in the shape of a streamed request, which is the same on the wire: guards run as soon as a call's
headers are there, and `receiving` reads its message afterwards, for a bounded time. A response is written by
`sending`, inside of the guards, so that a call counts until its caller has taken the response.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[[Any, Context], Any]


@dataclass(slots=True)
class Call:
    """One RPC: its full path, its text metadata, and whether it streams responses or requests.

    `request` is the request message, or an iterator of them if the RPC streams requests; `receiving` sets it.
    `response` is the response of an RPC that does not stream them, once it is known. `error` is the error that its
    caller gets instead.
    """

    method: str
    metadata: Mapping[str, str]
    streams: bool
    context: Context
    streams_requests: bool = False
    request: object = None
    response: object = None
    error: HandrailError | None = None

    @property
    def name(self) -> str:
        """The name of the method: `GetFlow`."""
        return self.method.rpartition("/")[2]

    @property
    def connection(self) -> str:
        """The connection that the call came over: `ipv4:10.0.0.7:40312`."""
        peer: str = self.context.peer()
        return peer

    @property
    def host(self) -> str:
        """The host that the call comes from: `ipv4:10.0.0.7`."""
        return self.connection.rpartition(":")[0]

    async def receive(self) -> object:
        """Returns the next message of the request; None at its end."""
        message: object = await self.context.read()
        return None if message is grpc.aio.EOF else message  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class MalformedRequest:
    """A placeholder for a request whose bytes can't be parsed as its type; `ContractGuard` refuses it."""

    size: int
    error: str

    def refusal(self) -> HandrailError:
        """Returns the error for it."""
        text = f"the request ({self.size} bytes) can't be parsed as its message type: {self.error}"
        return HandrailError(ErrorReason.ERROR_REASON_MALFORMED, text)


class Around(Protocol):
    """Surrounds every RPC."""

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
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
        serve = self._streaming if handler.response_streaming else self._unary
        make: Callable[..., Handler] = grpc.stream_stream_rpc_method_handler
        return make(
            serve(behaviour, method, streams_requests=handler.request_streaming),
            _lenient(handler.request_deserializer),
            handler.response_serializer,
        )

    def _unary(self, behaviour: Behaviour, method: str, *, streams_requests: bool) -> Behaviour:
        async def serve(_: object, context: Context) -> None:
            call = Call(method, _metadata(context), False, context, streams_requests)
            async with AsyncExitStack() as stack:
                await self._enter(stack, call)
                call.response = await behaviour(call.request, context)

        return serve

    def _streaming(self, behaviour: Behaviour, method: str, *, streams_requests: bool) -> Behaviour:
        # A coroutine that writes, not a generator: every `Around` then enters and exits in the RPC's own task.
        async def serve(_: object, context: Context) -> None:
            call = Call(method, _metadata(context), True, context, streams_requests)
            async with AsyncExitStack() as stack:
                await self._enter(stack, call)
                if not inspect.isasyncgenfunction(behaviour):
                    await behaviour(call.request, context)
                    return
                answers: AsyncGenerator[object, None] = behaviour(call.request, context)
                async with aclosing(answers):
                    async for response in answers:
                        await context.write(response)

        return serve

    async def _enter(self, stack: AsyncExitStack, call: Call) -> None:
        for around in self._arounds:
            await stack.enter_async_context(around.around(call))


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


def _metadata(context: Context) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}
