"""What comes in from the broker, taken apart without trusting any of it.

Whoever may publish chooses the headers of a stored message, and parts of its subject. nats-py's own parsing stops for
good where a subject is not UTF-8 or an inline status is not ASCII, and drops the connection where a subject holds a
vertical tab; each time the message is delivered. Here bytes that are no text become U+FFFD, and headers stay as they
came until somebody asks for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import nats.aio.client
import nats.protocol.parser
from nats.aio.msg import Msg
from nats.errors import Error, MaxPayloadError, ProtocolError

_STATUS = re.compile(rb"NATS/1\.0 +(\d{3})(?: ([^\r\n]*))?\r\n")
_LONGEST_LINE = 1 << 16
"""Bytes. The broker's own limit on a line is `max_control_line`, 4,096 by default; its INFO may be longer."""


@dataclass
class Message(Msg):
    """A message as it came in. `block` are its headers, byte for byte; empty where it has none."""

    block: bytes = b""


def status(message: Message) -> str:
    """The status in the first line of a reply, such as `503`; empty where there is none.

    For replies that the broker makes up. What it says for a stored message is for `direct` and `delivery` to find.
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


TOO_LARGE = "maximum payload violation"
"""What the broker says before it closes the connection over a message that is too large, in lower case."""


class Client(nats.aio.client.Client):
    """nats-py's client, with `Parser` in place of its own and messages that keep their headers as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = Parser(self)

    async def _process_headers(self, headers: bytes) -> bytes:  # type: ignore[override]
        return headers

    async def _process_err(self, err_msg: str) -> None:
        # nats-py would close for good; what was sent is the publisher's to judge.
        if TOO_LARGE in err_msg:
            await self._error_cb(Error(f"nats: {TOO_LARGE}"))
            await self._process_op_err(MaxPayloadError())
        else:
            await super()._process_err(err_msg)

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> Message:  # type: ignore[override]
        return Message(
            _client=self,
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            block=headers or b"",
            _sid=sid,
        )


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
