"""Speaks the broker's protocol directly, to publish messages that no client library would."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nkeys

from handrail.mesh.bus.nkey import public_key

_WAIT = 20.0


class RawClient:
    """A connection as one of the broker's users. Made by `raw_client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inbox: str) -> None:
        self._reader = reader
        self._writer = writer
        self._inbox = inbox.encode()
        self._asked = 0
        self._subscriptions = 1

    async def publish(self, subject: str | bytes, body: bytes, *, headers: bytes = b"") -> int:
        """Stores a message with this header block and returns its sequence. Raises AssertionError if it is refused."""
        answer = json.loads(await self.request(subject, body, headers=headers))
        assert "error" not in answer, answer
        return int(answer["seq"])

    async def request(self, subject: str | bytes, body: bytes = b"", *, headers: bytes = b"", reply: str = "") -> bytes:
        """Sends a message and returns the body of the first answer. `reply` replaces this connection's own inbox."""
        self._asked += 1
        subject = subject.encode() if isinstance(subject, str) else subject
        to = reply.encode() or self._inbox + b".%d" % self._asked
        if headers:
            head = b"HPUB %b %b %d %d\r\n" % (subject, to, len(headers), len(headers) + len(body))
        else:
            head = b"PUB %b %b %d\r\n" % (subject, to, len(body))
        self._writer.write(head + headers + body + b"\r\n")
        async with asyncio.timeout(_WAIT):
            while True:
                answered, answer = await self._next()
                if answered in (to, b"-ERR"):
                    return answer

    def send(self, subject: str, body: bytes, *, reply: str) -> None:
        """Sends a message without waiting for an answer."""
        self._writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body))

    def subscribe(self, subject: str) -> None:
        """Subscribes without waiting for the broker's word; `heard` has its refusal and what arrives."""
        self._subscriptions += 1
        self._writer.write(b"SUB %b %d\r\n" % (subject.encode(), self._subscriptions))

    def unsubscribe_all(self) -> None:
        """Ends all subscriptions but the inbox."""
        for number in range(2, self._subscriptions + 1):
            self._writer.write(b"UNSUB %d\r\n" % number)
        self._subscriptions = 1

    async def heard(self) -> list[tuple[bytes, bytes]]:
        """Subjects and bodies of all messages received by the time the broker has processed everything sent."""
        self._writer.write(b"PING\r\n")
        found: list[tuple[bytes, bytes]] = []
        async with asyncio.timeout(_WAIT):
            while (message := await self._next())[0] != b"PONG":
                found.append(message)
        return found

    async def _next(self) -> tuple[bytes, bytes]:
        """The subject and body of the next message, or `-ERR` or `PONG` with the line."""
        while line := await self._reader.readline():
            verb, *fields = line.split()
            if verb == b"PING":
                self._writer.write(b"PONG\r\n")
            elif verb in (b"-ERR", b"PONG"):
                return verb, line
            elif verb in (b"MSG", b"HMSG"):
                payload = await self._reader.readexactly(int(fields[-1]) + 2)
                return fields[0], payload[int(fields[-2]) if verb == b"HMSG" else 0 : -2]
        raise AssertionError("the broker closed the connection")


@asynccontextmanager
async def raw_client(url: str, *, user: str = "", nkey_seed: str = "") -> AsyncIterator[RawClient]:
    """Opens a connection while the block runs: as this user, or as nobody."""
    host, _, port = url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    hello = json.loads((await reader.readline()).removeprefix(b"INFO "))
    inbox = f"_INBOX_{user}.raw"
    options: dict[str, Any] = {"headers": True, "verbose": False}
    if user:
        signature = nkeys.from_seed(nkey_seed.encode()).sign(hello["nonce"].encode())
        options |= {"nkey": public_key(nkey_seed), "sig": base64.urlsafe_b64encode(signature).rstrip(b"=").decode()}
    writer.write(f"CONNECT {json.dumps(options)}\r\nSUB _INBOX_{user}.> 1\r\n".encode())
    try:
        yield RawClient(reader, writer, inbox)
    finally:
        writer.close()
        await writer.wait_closed()
