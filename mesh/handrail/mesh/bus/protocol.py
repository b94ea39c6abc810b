"""What comes in from the broker, taken apart without trusting any of it.

Whoever may publish chooses the headers of a stored message, and parts of its subject. nats-py's own parsing stops for
good where a subject is not UTF-8 or an inline status is not ASCII, and drops the connection where a subject holds a
vertical tab; each time the message is delivered. Here bytes that are no text become U+FFFD, and headers stay as they
came until somebody asks for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import nats.aio.client
import nats.protocol.parser
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

_STATUS = re.compile(rb"NATS/1\.0 +(\d{3})(?: ([^\r\n]*))?\r\n")
_LONGEST_LINE = 1 << 16
"""Bytes. The broker's own limit on a line is `max_control_line`, 4,096 by default; its INFO may be longer."""


@dataclass(slots=True)
class Message:
    """A message as it came in. `block` are its headers, byte for byte; empty where it has none."""

    subject: str
    reply: str = ""
    data: bytes = b""
    block: bytes = b""


def status(message: Message) -> str:
    """The status in the first line of a reply, such as `503`; empty where there is none.

    For replies that the broker makes up. What it says for a stored message is for `direct_get` and `delivery` to find.
    """
    found = _STATUS.match(message.block)
    return found[1].decode() if found else ""


def description(message: Message) -> str:
    """What a reply with a status says besides: `No Messages`."""
    found = _STATUS.match(message.block)
    return (found[2] or b"").decode(errors="replace").strip() if found else ""


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a block, the last one where a name comes twice; what is no header is left out."""
    lines = (line.partition(b":") for line in block.split(b"\r\n")[1:])
    return {
        name.decode(errors="replace").strip(): value.decode(errors="replace").strip()
        for name, separator, value in lines
        if separator
    }


def size(body: bytes, headers: Mapping[str, str] | None) -> int:
    """Bytes of a message as the broker counts them against its `max_payload`: headers are part of it."""
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
    """Headers as the protocol has them; empty where there are none."""
    if not headers:
        return b""
    lines = [f"{name}: {value.translate(_NO_LINE_ENDS)}\r\n" for name, value in headers.items()]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def publish_line(subject: str, reply: str, body: bytes, headers: Mapping[str, str] | None) -> bytes:
    """A message as the protocol has it; BadSubjectError where a subject would be read as something else."""
    if not is_subject(subject) or _NOT_IN_A_SUBJECT.search(reply):
        raise BadSubjectError
    head = header_block(headers)
    if not head:
        return b"%b %d\r\n%b\r\n" % (f"PUB {subject} {reply}".encode(), len(body), body)
    sizes = len(head), len(head) + len(body)
    return b"%b %d %d\r\n%b%b\r\n" % (f"HPUB {subject} {reply}".encode(), *sizes, head, body)


TOO_LARGE = "maximum payload violation"
"""What the broker says before it closes the connection over a message that is too large, in lower case."""


class Client(nats.aio.client.Client):
    """nats-py's client, with `Parser` in place of its own and messages that keep their headers as bytes.

    Messages go straight to whoever `listen`s: a queue and a task for each subscription took 10 µs a message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps = Parser(self)
        self._listeners: dict[int, Callable[[Message], None]] = {}

    async def listen(self, subject: str, on_message: Callable[[Message], None]) -> Subscription:
        """Subscribe. What `on_message` raises is told to the client's error callback."""
        self._listeners[self._sid + 1] = on_message  # `subscribe` takes this number before the first message can come
        return await self.subscribe(subject, cb=_never)

    async def send(self, data: bytes) -> None:
        """Send what `publish_line` made, any number of them in one.

        Raises ConnectionClosedError; OutboundBufferLimitError where the broker is away and no more can be kept for it.
        """
        if self.is_closed:
            raise ConnectionClosedError
        if not self.is_connected and len(data) + self._pending_data_size > self._max_pending_size:
            raise OutboundBufferLimitError
        if self._transport is None or not self.is_connected or self._pending:
            await self._send_command(data)
            await self._flush_pending()
            return
        # Past nats-py's queue and its task for it: nothing waits there.
        try:
            self._transport.write(data)
            await self._transport.drain()  # type: ignore[no-untyped-call]
        except OSError as error:
            await self._error_cb(error)
            await self._process_op_err(error)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        on_message = self._listeners.get(sid)
        if on_message is None:
            return
        try:
            on_message(Message(subject.decode(errors="replace"), reply.decode(errors="replace"), data, headers))
        except Exception as error:
            await self._error_cb(error)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py would close for good; what was sent is the publisher's to judge.
        if TOO_LARGE in err_msg:
            await self._error_cb(Error(f"nats: {TOO_LARGE}"))
            await self._process_op_err(MaxPayloadError())
        else:
            await super()._process_err(err_msg)


async def _never(_: Msg) -> None:
    """What nats-py would call."""


class Parser(nats.protocol.parser.Parser):
    """The protocol's lines and payloads: https://docs.nats.io/reference/reference-protocols/nats-protocol."""

    async def parse(self, data: bytes = b"") -> None:
        """Take in what was read; ProtocolError where it is none of the protocol."""
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
        """Hand a message on; False where the rest of it is still to come."""
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
