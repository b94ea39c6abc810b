"""nats-py's client, of which we keep what is hard about a connection: servers, TLS, credentials, reconnects, pings.

Received messages go directly to the listener of their subscription, and sent ones directly to the transport: nats-py's
queue and task per subscription cost 10 µs a message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import nats.aio.client
from nats.aio.client import Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, MaxPayloadError, UnexpectedEOF

from handrail.mesh.bus.parser import Listener, Parser
from handrail.mesh.bus.protocol import BrokenProtocol
from handrail.mesh.bus.safe_transport import SafeTransport
from handrail.mesh.waiting import cancelled

TOO_LARGE = "maximum payload violation"
"""The broker's error, in lower case, before it closes the connection because a message is too large."""


class Client(nats.aio.client.Client):
    """nats-py's client with our receive and send paths.

    With `needs_tls` neither credentials nor messages are sent over a connection without TLS, on each connect and
    reconnect. nats-py speaks TLS only if the server asks for it, and whoever is in between can answer for the server.
    """

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._needs_tls = needs_tls
        self._listeners: dict[bytes, Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None

    def on_writable(self) -> None:
        """Called when `writable` becomes true again without a reconnect; the send buffer replaces it."""

    @property
    def writable(self) -> bool:
        """Whether the connection is up, and the broker reads what is sent."""
        if not self.is_connected:
            return False
        if isinstance(self._transport, SafeTransport):
            return self._transport.writable
        return self._sending is None or self._sending.done()

    def write(self, data: bytes) -> None:
        """Sends encoded messages (`publish_line`), any number at once. Call it only while `writable`.

        What is being written when the connection breaks is lost: the sender repeats what is not answered.
        """
        assert self._transport is not None
        self._transport.write(data)
        if not isinstance(self._transport, SafeTransport):
            self._sending = self._later(self._drain())

    async def close(self) -> None:
        """Closes for good. nats-py may lose the cancellation of its reconnect, which would go on."""
        try:
            await super().close()
        finally:
            reconnecting = self._reconnection_task
            if reconnecting is not None and reconnecting is not asyncio.current_task():
                await cancelled(reconnecting)

    async def listen(self, subject: str, on_message: Listener) -> Subscription:
        """Subscribes. The client's error callback receives what `on_message` raises."""
        # `subscribe` takes this id before the first message can arrive.
        self._listeners[b"%d" % (self._sid + 1)] = on_message
        return await self.subscribe(subject, cb=_never)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(b"%d" % sid, None)
        super()._remove_sub(sid, max_msgs)

    def _connect_command(self) -> bytes:
        # Called on each connect and reconnect, after INFO and the handshake, before anything is written.
        if self._is_plain():
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            server = self._current_server.uri.netloc.rpartition("@")[2] if self._current_server is not None else "it"
            raise Error(f"the server at {server} offers no TLS, which is required: nothing was sent to it")
        return super()._connect_command()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py writes what is pending before it closes, also to a server that it has not finished to connect to, and
        # it waits for one that does not read.
        if self._is_plain() or (isinstance(self._transport, SafeTransport) and not self._transport.writable):
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: Srv) -> None:
        if not self._transport and s.uri.scheme not in ("ws", "wss"):
            self._transport = SafeTransport(lambda: self.on_writable())
        await super()._connect_to_server(s)

    def _is_plain(self) -> bool:
        """Whether TLS is needed, and the connection has none."""
        if not self._needs_tls or self._transport is None:
            return False
        if isinstance(self._transport, SafeTransport):
            return not self._transport.encrypted
        return self._current_server is None or self._current_server.uri.scheme != "wss"

    async def _read_loop(self) -> None:
        # nats-py starts it after each handshake, and cancels it before the next.
        parser = Parser(self._listeners, self._on_line, self._on_listener_error)
        transport = self._transport
        assert transport is not None
        try:
            if isinstance(transport, SafeTransport):
                await transport.listen(parser.feed)
            while data := await transport.read(0):  # a WebSocket
                parser.feed(data)
            raise UnexpectedEOF
        except Exception as error:
            await self._error_cb(error)
            await self._process_op_err(error)

    def _on_line(self, verb: bytes, rest: bytes) -> None:
        match verb:
            case b"PING":
                # A broker that pings and does not read would fill the memory with our answers.
                if self.writable:
                    self.write(b"PONG\r\n")
            case b"PONG":
                self._on_pong()
            case b"-ERR":
                # Begins before anybody goes on who waits for a PONG behind it: a refused subscription is known by then.
                self._later(self._process_err(rest.decode(errors="replace").strip().lower()))
            case b"INFO":
                self._later(self._process_info(_parse_info(rest)))
            case b"+OK":
                pass
            case _:
                raise BrokenProtocol("an unknown command")

    def _on_pong(self) -> None:
        self._pings_outstanding = 0
        if self._pongs:
            waiting = self._pongs.pop(0)
            # Whoever asked may have given up: nats-py would stop to read.
            if not waiting.done():
                waiting.set_result(True)

    def _on_listener_error(self, error: Exception) -> None:
        self._later(self._error_cb(error))

    async def _process_err(self, err_msg: str) -> None:
        # nats-py would close for good; here the publisher handles the message that was too large.
        if TOO_LARGE in err_msg:
            await self._error_cb(Error(f"nats: {TOO_LARGE}"))
            await self._process_op_err(MaxPayloadError())
        else:
            await super()._process_err(err_msg)

    async def _drain(self) -> None:
        """Sends what was written to a WebSocket."""
        assert self._transport is not None
        try:
            await self._transport.drain()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError) as error:
            await self._error_cb(error)
            await self._process_op_err(error)
        asyncio.get_running_loop().call_soon(self.on_writable)

    def _later(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._reported(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reported(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            await self._error_cb(error)


def _parse_info(text: bytes) -> dict[str, Any]:
    """The fields of an INFO. Raises BrokenProtocol if it is not an object in JSON."""
    try:
        info = json.loads(text)
    except ValueError as error:
        raise BrokenProtocol("an INFO that is not JSON") from error
    if not isinstance(info, dict):
        raise BrokenProtocol("an INFO that is no object")
    return info


async def _never(_: Msg) -> None:
    """The callback that nats-py requires; never called."""
