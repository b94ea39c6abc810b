"""Parses untrusted input from the broker.

Publishers choose the headers of a stored message, and parts of its subject. nats-py's own parser stops for good if a
subject is not UTF-8 or an inline status is not ASCII, and drops the connection if a subject contains a vertical tab,
each time the message is delivered. This parser replaces bytes that are not UTF-8 with U+FFFD, and keeps headers as raw
bytes until a reader needs them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import nats.aio.client
import nats.protocol.parser
from nats.aio.client import Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import (
    BadSubjectError,
    ConnectionClosedError,
    Error,
    MaxPayloadError,
    OutboundBufferLimitError,
    ProtocolError,
)

from handrail.mesh.bus.safe_transport import SafeTransport
from handrail.mesh.waiting import cancelled

_STATUS = re.compile(rb"NATS/1\.0 +(\d{3})(?: ([^\r\n]*))?\r\n")
_LONGEST_LINE = 1 << 16
"""Bytes. The broker limits a line to `max_control_line`, 4,096 by default; its INFO may be longer."""


@dataclass(slots=True)
class Message:
    """A message as received. `block` holds the raw bytes of its headers; empty without headers."""

    subject: str
    reply: str = ""
    data: bytes = b""
    block: bytes = b""


def status(message: Message) -> str:
    """The status in the first line of a reply, such as `503`; empty without a status.

    Only for the broker's own replies: stored messages may carry a forged status (see `direct_get` and `delivery`).
    """
    found = _STATUS.match(message.block)
    return found[1].decode() if found else ""


def description(message: Message) -> str:
    """The description after the status of a reply: `No Messages`."""
    found = _STATUS.match(message.block)
    return (found[2] or b"").decode(errors="replace").strip() if found else ""


def parse_headers(block: bytes) -> dict[str, str]:
    """Parses the headers of a block. The last of repeated names wins; lines that are not headers are ignored."""
    lines = (line.partition(b":") for line in block.split(b"\r\n")[1:])
    return {
        name.decode(errors="replace").strip(): value.decode(errors="replace").strip()
        for name, separator, value in lines
        if separator
    }


def size(body: bytes, headers: Mapping[str, str] | None) -> int:
    """The size of a message in bytes as the broker compares it with `max_payload`: body and headers."""
    if not headers:
        return len(body)
    return (
        len(body)
        + len("NATS/1.0\r\n\r\n")
        + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    )


_NOT_IN_A_SUBJECT = re.compile(r"[\s\x00]")
_NO_LINE_ENDS = str.maketrans({"\r": " ", "\n": " "})


def is_subject(text: str) -> bool:
    """Whether the protocol would read the text as one subject."""
    return bool(text) and _NOT_IN_A_SUBJECT.search(text) is None


def header_block(headers: Mapping[str, str] | None) -> bytes:
    """Encodes headers for the protocol; empty without headers."""
    if not headers:
        return b""
    lines = [f"{name}: {value.translate(_NO_LINE_ENDS)}\r\n" for name, value in headers.items()]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def publish_line(subject: str, reply: str, body: bytes, headers: Mapping[str, str] | None) -> bytes:
    """Encodes a message for the protocol. Raises BadSubjectError if a subject would break the protocol line."""
    if not is_subject(subject) or _NOT_IN_A_SUBJECT.search(reply):
        raise BadSubjectError
    head = header_block(headers)
    if not head:
        return b"%b %d\r\n%b\r\n" % (f"PUB {subject} {reply}".encode(), len(body), body)
    sizes = len(head), len(head) + len(body)
    return b"%b %d %d\r\n%b%b\r\n" % (f"HPUB {subject} {reply}".encode(), *sizes, head, body)


TOO_LARGE = "maximum payload violation"
"""The broker's error, in lower case, before it closes the connection because a message is too large."""


class Client(nats.aio.client.Client):
    """nats-py's client with our `Parser`, and messages that keep their headers as bytes.

    Messages go directly to the callback given to `listen`: nats-py's queue and task per subscription cost 10 µs a
    message.

    With `needs_tls` neither credentials nor messages are sent over a connection without TLS, on each connect and
    reconnect. nats-py speaks TLS only if the server asks for it, and whoever is in between can answer for the server.
    """

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._needs_tls = needs_tls
        self._ps = Parser(self)
        self._listeners: dict[int, Callable[[Message], None]] = {}

    async def close(self) -> None:
        """Closes for good. nats-py may lose the cancellation of its reconnect, which would go on."""
        try:
            await super().close()
        finally:
            reconnecting = self._reconnection_task
            if reconnecting is not None and reconnecting is not asyncio.current_task():
                await cancelled(reconnecting)

    async def listen(self, subject: str, on_message: Callable[[Message], None]) -> Subscription:
        """Subscribes. The client's error callback receives what `on_message` raises."""
        self._listeners[self._sid + 1] = on_message  # `subscribe` takes this id before the first message can arrive
        return await self.subscribe(subject, cb=_never)

    async def send(self, data: bytes) -> None:
        """Sends encoded messages (`publish_line`), any number at once.

        What is being written when the connection breaks is lost: the sender repeats what is not answered. Raises
        ConnectionClosedError, and OutboundBufferLimitError if the broker is away and the buffer is full.
        """
        if self.is_closed:
            raise ConnectionClosedError
        if not self.is_connected and len(data) + self._pending_data_size > self._max_pending_size:
            raise OutboundBufferLimitError
        if self._transport is None or not self.is_connected or self._pending:
            await self._send_command(data)
            await self._flush_pending()
            return
        # Bypasses nats-py's write queue and its task: nothing waits there.
        try:
            self._transport.write(data)
            await self._transport.drain()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError) as error:  # uvloop's transports raise RuntimeError once they are closed
            await self._error_cb(error)
            await self._process_op_err(error)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
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
        # nats-py writes what is pending before it closes, also to a server that it has not finished to connect to.
        if self._is_plain():
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: Srv) -> None:
        if not self._transport and s.uri.scheme not in ("ws", "wss"):
            self._transport = SafeTransport()
        await super()._connect_to_server(s)

    def _is_plain(self) -> bool:
        """Whether TLS is needed, and the connection has none."""
        if not self._needs_tls or self._transport is None:
            return False
        if isinstance(self._transport, SafeTransport):
            return not self._transport.encrypted
        return self._current_server is None or self._current_server.uri.scheme != "wss"

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        on_message = self._listeners.get(sid)
        if on_message is None:
            return
        try:
            on_message(Message(subject.decode(errors="replace"), reply.decode(errors="replace"), data, headers))
        except Exception as error:
            await self._error_cb(error)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py would close for good; here the publisher handles the message that was too large.
        if TOO_LARGE in err_msg:
            await self._error_cb(Error(f"nats: {TOO_LARGE}"))
            await self._process_op_err(MaxPayloadError())
        else:
            await super()._process_err(err_msg)


async def _never(_: Msg) -> None:
    """The callback that nats-py requires; never called."""


class Parser(nats.protocol.parser.Parser):
    """Parses the protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol."""

    async def parse(self, data: bytes = b"") -> None:
        """Processes received bytes. Raises ProtocolError if they violate the protocol."""
        self.buf += data
        while (end := self.buf.find(b"\r\n")) >= 0:
            verb, _, rest = bytes(self.buf[:end]).partition(b" ")
            if verb not in (b"MSG", b"HMSG"):
                del self.buf[: end + 2]
                await self._control(verb, rest)
            elif not await self._message(end + 2, rest.split(b" "), has_headers=verb == b"HMSG"):
                return
        if len(self.buf) > _LONGEST_LINE:
            raise ProtocolError("nats: a line without an end")

    async def _message(self, begin: int, fields: list[bytes], *, has_headers: bool) -> bool:
        """Passes a message on; False if part of it has not arrived yet."""
        try:
            size = int(fields[-1])
            head = int(fields.pop(-2)) if has_headers else 0
            subject, sid, reply = fields[0], int(fields[1]), fields[2] if len(fields) == 4 else b""
        except (ValueError, IndexError) as error:
            raise ProtocolError("nats: malformed MSG") from error
        if len(self.buf) < begin + size + 2:
            return False
        block = bytes(self.buf[begin : begin + head])
        payload = bytes(self.buf[begin + head : begin + size])
        del self.buf[: begin + size + 2]
        await self.nc._process_msg(sid, subject, reply, payload, block)
        return True

    async def _control(self, verb: bytes, rest: bytes) -> None:
        match verb.upper():
            case b"PING":
                await self.nc._process_ping()
            case b"PONG":
                await self.nc._process_pong()
            case b"-ERR":
                await self.nc._process_err(rest.decode(errors="replace").strip().lower())
            case b"INFO":
                await self.nc._process_info(json.loads(rest))
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")
