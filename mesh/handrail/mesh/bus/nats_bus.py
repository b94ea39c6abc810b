"""The bus on a nats-server.

- `connection`: nats-py's client, sending without waiting (`send_buffer`), one `reply_inbox`, refusals told at once
- `publish`: publishing to a stream, with expectations
- `pull`: consuming a durable; `delivery` is one message of it
- `direct_reads`: reading from a stream; `direct_get` is what a read returns
- `api`: the JetStream API
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from nats.aio.subscription import Subscription

from handrail.mesh.bus import api
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.bus import Bus
from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.delivery import Delivery
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage
from handrail.mesh.bus.direct_reads import DirectReads
from handrail.mesh.bus.protocol import Message
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT, Publisher, Stored
from handrail.mesh.bus.pull import Pull
from handrail.mesh.errors import HandrailError


class NatsBus(Bus):
    """A bus over one connection to the broker. Make one with `connect`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._publisher = Publisher(connection)
        self._reads = DirectReads(connection)

    @classmethod
    async def connect(cls, settings: BusSettings) -> NatsBus:
        """Connects. Raises BrokerUnavailable without an answer in time, BrokerPermission for refused credentials."""
        return cls(await Connection.open(settings))

    async def close(self) -> None:
        """Send what is left and close."""
        await self.connection.close()

    async def __aenter__(self) -> NatsBus:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """Who is connected: the agent's name, `coordinator`, …"""
        return self.connection.settings.name

    @property
    def server_version(self) -> str:
        """The version of the connected server."""
        return self.connection.server_version

    @property
    def closed(self) -> asyncio.Event:
        """Set once the connection is closed for good: by us, or by a broker that refuses us."""
        return self.connection.closed

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> int:
        """Store a message and wait for the broker's answer."""
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_stored(outcome: int | HandrailError) -> None:
            if stored.done():
                return
            if isinstance(outcome, HandrailError):
                stored.set_exception(outcome)
            else:
                stored.set_result(outcome)

        self._publisher.publish(
            subject,
            body,
            on_stored,
            expected_sequence=expected_sequence,
            expected_filter=expected_filter,
            headers=headers,
            timeout=timeout,
        )
        return await stored

    def publish_nowait(
        self,
        subject: str,
        body: bytes,
        on_stored: Stored,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> None:
        """As `publish`, without a future: `on_stored` is told the sequence or the error, once, from the event loop."""
        self._publisher.publish(
            subject,
            body,
            on_stored,
            expected_sequence=expected_sequence,
            expected_filter=expected_filter,
            headers=headers,
            timeout=timeout,
        )

    async def pull(
        self,
        stream: str,
        durable: str,
        *,
        in_flight: int,
        on_delivery: Callable[[Delivery], None],
        on_problem: Callable[[HandrailError], None] | None = None,
    ) -> Pull:
        """Consumes a durable: passes each message to `on_delivery`, with at most `in_flight` unsettled messages.

        Continues over reconnects and leader elections. Calls `on_problem` if the durable is missing or may not be
        pulled, and keeps requesting.
        """
        pull = Pull(
            self.connection,
            stream=stream,
            durable=durable,
            in_flight=in_flight,
            on_delivery=on_delivery,
            on_problem=on_problem,
        )
        await pull.start()
        return pull

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        """The last message of each subject, from whichever replica answers."""
        request: dict[str, Any] = {"multi_last": list(multi_last)}
        if from_seq:
            request["seq"] = from_seq
        if up_to_seq is not None:
            request["up_to_seq"] = up_to_seq
        return await self._reads.read(stream, request, timeout=timeout)

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """Messages from a sequence on, from whichever replica answers."""
        request = {"next_by_subj": subject_filter, "seq": max(1, from_sequence), "batch": limit}
        return await self._reads.read(stream, request, timeout=timeout)

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The newest message, from whichever replica answers."""
        page = await self._reads.read(stream, {"last_by_subj": subject_filter}, timeout=timeout)
        return page.messages[0] if page.messages else None

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """The newest message, from the stream's leader."""
        return await api.last_on_leader(self.connection, stream, subject_filter, timeout=timeout)

    async def first_on_leader(
        self, stream: str, subject_filter: str, *, from_sequence: int, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """The first message that matches, from a sequence on, from the stream's leader; None if there is none."""
        return await api.first_on_leader(
            self.connection, stream, subject_filter, from_sequence=from_sequence, timeout=timeout
        )

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The message at a sequence, from whichever replica answers."""
        page = await self._reads.read(stream, {"seq": sequence}, timeout=timeout)
        return page.messages[0] if page.messages else None

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Ask the JetStream API."""
        return await api.request_json(self.connection, api_subject, payload, timeout=timeout)

    async def subscribe(self, subject: str, on_message: Callable[[Message], None]) -> Subscription:
        """Makes a core subscription: messages are received only while connected, and may be lost. For hints only."""
        return await self.connection.subscribe(subject, on_message)
