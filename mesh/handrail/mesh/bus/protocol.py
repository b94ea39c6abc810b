"""One message of the NATS protocol: as received, and encoded to be sent.

The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nats.errors import BadSubjectError, Error

_STATUS = re.compile(rb"NATS/1\.0 +(\d{3})(?: ([^\r\n]*))?\r\n")


class BrokenProtocol(Error):
    """The broker sent something that the protocol does not allow, such as `a line without an end`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the broker breaks the NATS protocol: {what}")


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


_NO_LINE_ENDS = str.maketrans({"\r": " ", "\n": " "})


def is_subject(text: str) -> bool:
    """Whether the protocol would read the text as one subject."""
    return text.split() == [text] and "\0" not in text


def header_block(headers: Mapping[str, str] | None) -> bytes:
    """Encodes headers for the protocol; empty without headers."""
    if not headers:
        return b""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    if text.count("\r") + text.count("\n") > 2 * (len(lines) - 1):
        text = "\r\n".join(line.translate(_NO_LINE_ENDS) for line in lines)
    return f"NATS/1.0\r\n{text}\r\n\r\n".encode()


def publish_line(subject: str, reply: str, body: bytes, block: bytes = b"") -> bytes:
    """Encodes a message for the protocol, with the headers in `block`. `reply` may be empty.

    Raises BadSubjectError if a subject would break the protocol line.
    """
    if not is_subject(subject) or not (reply == "" or is_subject(reply)):
        raise BadSubjectError
    if not block:
        return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(body)}\r\n".encode(), body)
    sizes = f"{len(block)} {len(block) + len(body)}"
    return b"%b%b%b\r\n" % (f"HPUB {subject} {reply} {sizes}\r\n".encode(), block, body)


def asks(line: bytes) -> bool:
    """Whether a message encoded by `publish_line` names a subject for the reply."""
    return line[: line.index(b"\r\n")].split(b" ")[2] != b""
