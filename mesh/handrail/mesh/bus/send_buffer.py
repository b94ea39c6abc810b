"""The send buffer: `put` never waits, one task writes, and messages are kept while the broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import nats.errors

from handrail.mesh.bus.protocol import Client, publish_line
from handrail.mesh.errors import BrokerUnavailable, HandrailError, TooLarge

_AT_ONCE = 256
"""The number of messages per write."""

_Outgoing = tuple[str, bytes, str, dict[str, str] | None]


class SendBuffer:
    """`connected` is set while the connection is up; `on_refused` gets the reply subject of each unsendable message."""

    def __init__(
        self, client: Client, connected: asyncio.Event, on_refused: Callable[[str, HandrailError], None]
    ) -> None:
        self._client = client
        self._connected = connected
        self._on_refused = on_refused
        self._messages: list[_Outgoing] = []
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def put(self, subject: str, body: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Adds a message."""
        self._messages.append((subject, body, reply, dict(headers) if headers else None))
        if self._drained.is_set():
            self._drained.clear()
            self._filled.set()

    async def drained(self) -> None:
        """Waits until all messages were passed to the client."""
        await self._drained.wait()

    async def write(self) -> None:
        """Writes out buffered messages, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._messages:
                await self._connected.wait()
                batch, self._messages = self._messages[:_AT_ONCE], self._messages[_AT_ONCE:]
                try:
                    await self._client.send(self._encoded(batch))
                except nats.errors.OutboundBufferLimitError:
                    # The connection is lost and nats-py's buffer is full: keep the rest until the reconnect.
                    self._messages[:0] = batch
                    self._connected.clear()
                except Exception as error:  # whatever it is, the next batch must still be written
                    for subject, _, reply, _ in batch:
                        self._on_refused(reply, BrokerUnavailable(f"can't send on {subject}: {error!r}"))
            self._drained.set()

    def _encoded(self, batch: list[_Outgoing]) -> bytes:
        lines = []
        for subject, body, reply, headers in batch:
            if len(body) > self._client.max_payload:
                self._on_refused(reply, TooLarge(subject, len(body), self._client.max_payload))
                continue
            try:
                lines.append(publish_line(subject, reply, body, headers))
            except nats.errors.BadSubjectError as error:
                self._on_refused(reply, BrokerUnavailable(f"can't send on {subject}: {error}"))
        return b"".join(lines)
