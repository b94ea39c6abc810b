"""Messages on their way out: put in without waiting, written by one task, kept while the broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import nats.errors
from nats.aio.client import Client

from handrail.mesh.errors import BrokerUnavailable, HandrailError, TooLarge

_Outgoing = tuple[str, bytes, str, dict[str, str] | None]


class Outbox:
    """`connected` is set while the broker is there; `on_refused` is told the reply subject of what can't be sent."""

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
        """Add a message."""
        self._messages.append((subject, body, reply, dict(headers) if headers else None))
        if self._drained.is_set():
            self._drained.clear()
            self._filled.set()

    async def drained(self) -> None:
        """Wait until all was handed to the client."""
        await self._drained.wait()

    async def write(self) -> None:
        """Write out what is put in, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._messages:
                batch, self._messages = self._messages, []
                await self._write_batch(batch)
            self._drained.set()

    async def _write_batch(self, batch: list[_Outgoing]) -> None:
        for position, (subject, body, reply, headers) in enumerate(batch):
            try:
                await self._connected.wait()
                await self._client.publish(subject, body, reply, headers)
            except nats.errors.OutboundBufferLimitError:
                # The connection went and nats-py's own buffer is full: keep the rest until it is back.
                self._messages[:0] = batch[position:]
                self._connected.clear()
                return
            except nats.errors.MaxPayloadError:
                self._on_refused(reply, TooLarge(subject, len(body), self._client.max_payload))
            except nats.errors.Error as error:
                self._on_refused(reply, BrokerUnavailable(f"can't send on {subject}: {error}"))
