"""The send buffer: `put` never waits, and what one turn of the event loop puts in is written at once.

Messages wait here while the broker is away, or reads more slowly than we write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import nats.errors

from handrail.mesh.bus.client import Client
from handrail.mesh.bus.protocol import asks, header_block, publish_line
from handrail.mesh.errors import BrokerUnavailable, HandrailError, TooLarge

LIMIT = 96 << 20
"""Bytes that may wait. A message beyond them is refused. Publishes take 64 MiB of it (see `publish`)."""


class SendBuffer:
    """Writes to `client`; `on_refused` gets the reply subject of each unsendable message, from the event loop."""

    def __init__(self, client: Client, on_refused: Callable[[str, HandrailError], None], *, limit: int = LIMIT) -> None:
        self._client = client
        self._on_refused = on_refused
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._size = 0
        self._scheduled = False
        self._drained = asyncio.Event()
        self._drained.set()
        client.on_writable = self.write  # type: ignore[method-assign]

    @property
    def waits(self) -> bool:
        """Whether messages wait for a broker that is away or reads slowly."""
        return bool(self._lines) and not self._scheduled

    def put(self, subject: str, body: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Adds a message."""
        if len(body) > self._client.max_payload:
            self._refuse(reply, TooLarge(subject, len(body), self._client.max_payload))
            return
        try:
            line = publish_line(subject, reply, body, header_block(headers))
        except nats.errors.BadSubjectError as error:
            self._refuse(reply, BrokerUnavailable(f"can't send on {subject}: {error}"))
            return
        self.put_line(line, reply)

    def put_line(self, line: bytes, reply: str) -> None:
        """Adds a message that `publish_line` encoded and that is not larger than `max_payload`."""
        if self._size + len(line) > self._limit:
            why = f"{self._size:,} bytes wait already, because the broker is away or reads too slowly"
            self._refuse(reply, BrokerUnavailable(f"a message was not sent: {why}"))
            return
        self._lines.append(line)
        self._size += len(line)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.write)

    async def drained(self) -> None:
        """Waits until all messages were passed to the transport."""
        while self._lines:
            self._drained.clear()
            await self._drained.wait()

    def write(self) -> None:
        """Writes what waits, if the broker takes it."""
        self._scheduled = False
        if not self._lines or not self._client.writable:
            return
        data = self._lines[0] if len(self._lines) == 1 else b"".join(self._lines)
        self._empty([])
        self._client.write(data)

    def drop_questions(self) -> None:
        """Drops the messages that ask for a reply, after the connection is lost: the sender repeats them.

        Without this, a message could be stored long after its sender gave up.
        """
        self._empty([line for line in self._lines if not asks(line)])

    def drop(self, lines: Iterable[bytes]) -> None:
        """Drops messages whose sender gave up, if they still wait here: these very objects, not equal ones."""
        gone = set(map(id, lines))
        self._empty([line for line in self._lines if id(line) not in gone])

    def _empty(self, left: list[bytes]) -> None:
        self._lines = left
        self._size = sum(map(len, left))
        self._drained.set()

    def _refuse(self, reply: str, error: HandrailError) -> None:
        self._loop.call_soon(self._on_refused, reply, error)
