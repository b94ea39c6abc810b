"""What happens around every RPC, in one shape for unary and streaming RPCs.

grpc.aio requires an interceptor to unpack a handler and build a new one. That happens once for each method, here: an
`Around` is called with a call, and calls what is inside of it, the next one or the handler.

grpc.aio reads the message of a unary request before it calls any code of ours, and waits for it without a limit. So
every RPC is served in the shape of a streamed request, which is the same on the wire: guards run as soon as a call's
headers are there, and `receiving` reads its message afterwards, for a bounded time.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[[Any, Context], Any]

_stream_stream: Callable[..., Handler] = grpc.stream_stream_rpc_method_handler
_stream_unary: Callable[..., Handler] = grpc.stream_unary_rpc_method_handler


@dataclass(slots=True)
class Call:
    """One RPC: its full path, its text metadata, and whether it streams responses or requests.

    `request` is the request message, or an iterator of them if the RPC streams requests; `receiving` sets it.
    `response` is the serialized response of an RPC that does not stream them, once it is known. `error` is the error
    that its caller gets instead.
    """

    method: str
    metadata: Mapping[str, str]
    streams: bool
    context: Context
    streams_requests: bool = False
    request: object = None
    response: bytes = b""
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

    def when_over(self, act: Callable[[], None]) -> None:
        """Calls `act` once the call is over: its caller has taken the response, or is gone."""
        self.context.add_done_callback(lambda _: act())  # type: ignore[arg-type]  # its stub leaves out functions


@dataclass(frozen=True, slots=True)
class MalformedRequest:
    """A placeholder for a request whose bytes can't be parsed as its type; `ContractGuard` refuses it."""

    size: int
    error: str

    def refusal(self) -> HandrailError:
        """Returns the error for it."""
        text = f"the request ({self.size} bytes) can't be parsed as its message type: {self.error}"
        return HandrailError(ErrorReason.ERROR_REASON_MALFORMED, text)


Proceed: TypeAlias = Callable[[Call], Awaitable[None]]
"""Serves a call: the handler, or an `Around` with all that is inside of it."""


class Around(Protocol):
    """Surrounds every RPC."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Serves the call by `proceed`, after and before whatever it does itself; an error instead refuses the call."""


class Interceptors(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Puts every `Around` around every RPC, the first one outermost."""

    def __init__(self, arounds: Sequence[Around]) -> None:
        self._arounds = tuple(arounds)
        self._surrounded: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Called by grpc.aio for every RPC, to find its handler."""
        method = handler_call_details.method
        if method not in self._surrounded:
            handler = await continuation(handler_call_details)
            if handler is None:
                # Unknown method: grpc.aio accepts None, although its stub says otherwise, and answers UNIMPLEMENTED.
                return cast("Handler", None)
            self._surrounded[method] = self._surround(handler, method)
        return self._surrounded[method]

    def _surround(self, handler: Handler, method: str) -> Handler:
        streams, streams_requests = handler.response_streaming, handler.request_streaming
        proceed = (_streaming if streams else _unary)(handler)
        for around in reversed(self._arounds):
            proceed = partial(around.around, proceed=proceed)

        async def serve(_: object, context: Context) -> bytes:
            call = Call(method, _metadata(context), streams, context, streams_requests)
            await proceed(call)
            return call.response

        read = _lenient(handler.request_deserializer)
        if streams:
            return _stream_stream(serve, read, handler.response_serializer)
        # What `serve` returns is serialized, so that an error of the serializer is treated like one of the handler.
        return _stream_unary(serve, read)


def _unary(handler: Handler) -> Proceed:
    behaviour = cast("Behaviour", handler.stream_unary if handler.request_streaming else handler.unary_unary)
    serialize = cast("Callable[[object], bytes]", handler.response_serializer)

    async def proceed(call: Call) -> None:
        call.response = serialize(await behaviour(call.request, call.context))

    return proceed


def _streaming(handler: Handler) -> Proceed:
    behaviour = cast("Behaviour", handler.stream_stream if handler.request_streaming else handler.unary_stream)

    # A coroutine that writes, not a generator: every `Around` then runs in the RPC's own task.
    async def proceed(call: Call) -> None:
        answers: AsyncGenerator[object, None] = behaviour(call.request, call.context)
        async with aclosing(answers):
            async for response in answers:
                await call.context.write(response)

    return proceed if inspect.isasyncgenfunction(behaviour) else lambda call: behaviour(call.request, call.context)


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
