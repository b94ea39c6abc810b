"""Reads the messages of some flow types, as one of the broker's readers (docs/readers.md).

    async for message in read(bus, "analytics", after=last):
        ...
        last = message.sequence

New messages come as soon as they are stored. The headers, which the publishers chose, are left out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta

import nats.errors

from handrail.mesh.bus import ApiError, NatsBus, RawMessage
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.bus.delivery import place
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import reader_durable
from handrail.mesh.streams.streams import FLOW

_BATCH = 256
"""Messages of one request. At most as many wait in this process."""

_EXPIRES = timedelta(seconds=3)
_LATE = timedelta(seconds=1)
"""How long a request lasts, and how late the broker's word of its end may be."""

_REQUEST = json.dumps({"batch": _BATCH, "expires": int(_EXPIRES.total_seconds()) * 1_000_000_000}).encode()


async def read(bus: NatsBus, reader: str, *, after: int = 0) -> AsyncGenerator[RawMessage, None]:
    """Yields the messages of the reader's flow types that have a sequence beyond `after`, in stream order, each once,
    and never ends.

    The broker forgets what it delivered, so a loss is noticed by its numbers, and read again. Only one process may read
    under one name at a time. Raises BrokerUnavailable if there is no answer in time: read again, after the last
    sequence. Raises BrokerPermission, and ApiError if the reader has no durable.
    """
    durable = reader_durable(reader)
    while True:
        await _reset(bus, durable, after + 1)
        async with aclosing(_until_a_loss(bus, durable)) as deliveries:
            async for message in deliveries:
                yield message
                after = message.sequence


async def _reset(bus: NatsBus, durable: str, sequence: int) -> None:
    """Has the durable deliver from this sequence on, and count its deliveries from 1."""
    try:
        await _delivered(bus, durable)  # without a durable, a reset gets no answer
    except ApiError as error:
        if error.code == CONSUMER_NOT_FOUND:
            text = f"there is no durable {durable}: create it (handrail admin reader)"
            raise HandrailError(error.reason, text) from error
        raise
    await bus.request_json(f"$JS.API.CONSUMER.RESET.{FLOW}.{durable}", {"seq": sequence})


async def _until_a_loss(bus: NatsBus, durable: str) -> AsyncGenerator[RawMessage, None]:
    """Yields what the durable delivers since its reset, until a delivery is missing."""
    connection = bus.connection
    inbox = connection.inbox.new_prefix()
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await connection.subscribe(f"{inbox}.*", arrived.put_nowait)
    nth = 0
    try:
        while True:
            wanted = nth + _BATCH
            connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{FLOW}.{durable}", _REQUEST, reply=f"{inbox}.{nth}")
            while nth < wanted:
                message = await _next(arrived)
                at = place(message.reply) if message is not None else None
                if message is None or at is None:
                    break  # the request has ended
                if (at.stream, at.durable, at.nth) != (FLOW, durable, nth + 1):
                    return
                nth = at.nth
                yield RawMessage(message.subject, message.data, at.sequence, at.stored_at)
                if not message.data:
                    # Across accounts, the broker takes it for the end of all answers, and loses the next ones.
                    return
            if nth < wanted and await _delivered(bus, durable) != nth:
                return
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def _next(arrived: asyncio.Queue[Message]) -> Message | None:
    """The next message, or None if nothing comes while a request lasts."""
    with suppress(TimeoutError):
        async with asyncio.timeout((_EXPIRES + _LATE).total_seconds()):
            return await arrived.get()
    return None


async def _delivered(bus: NatsBus, durable: str) -> int:
    """How many messages the durable has delivered since its reset."""
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}")
    return int(info["delivered"]["consumer_seq"])
