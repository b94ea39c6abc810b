"""Wakes the watches of a replica when something is stored in their flows.

What agents publish can't be heard in the coordinator's account. So one consumer of FLOW, without acknowledgements and
without bodies, tells this process of every stored message, for as long as there is a watch. It is for hints only: a
watch that misses one looks later by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import nats.errors

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message, status
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW

_logger = logging.getLogger(__name__)

_BATCH = 1024
"""Messages of one request."""

_EXPIRES = timedelta(seconds=3)
_SILENCE = timedelta(seconds=4)
"""How long a request lasts, and after which time without an answer the consumer counts as lost."""

_EXPIRED_STATUS = "408"

_INACTIVE = timedelta(seconds=5)
"""How long the broker keeps the consumer after the last request."""

_AGAIN = timedelta(seconds=1)
"""The time until the next try if no consumer can be created."""


class Wakeups:
    """The hints for all watches of one replica."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._hints: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._listening: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, flow_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something may have been stored in this flow. Clear it before you look."""
        hint = asyncio.Event()
        self._hints[flow_id].add(hint)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="wakeups")
        try:
            yield hint
        finally:
            self._hints[flow_id].discard(hint)
            if not self._hints[flow_id]:
                del self._hints[flow_id]
            if not self._hints:
                ended, self._listening = self._listening, None
                ended.cancel()
                await asyncio.wait([ended])

    async def _listen(self) -> None:
        """Keeps a consumer open until it is cancelled."""
        while True:
            try:
                await self._until_lost()
            except HandrailError as error:
                _logger.warning("watches look for news from time to time only: %s", error)
                await asyncio.sleep(_AGAIN.total_seconds())

    async def _until_lost(self) -> None:
        """Passes on what a new consumer delivers, until it is lost with a connection or a leader."""
        connection = self._bus.connection
        inbox = connection.inbox.new_prefix()
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        subscription = await connection.subscribe(f"{inbox}.*", arrived.put_nowait)
        request = json.dumps({"batch": _BATCH, "expires": _nanoseconds(_EXPIRES)}).encode()
        try:
            consumer = await self._create()
            for flow_id in self._hints:
                self._wake(flow_id)  # it may have missed what was stored before
            while True:
                connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{FLOW}.{consumer}", request, reply=f"{inbox}.1")
                if not await self._served(arrived):
                    return
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _served(self, arrived: asyncio.Queue[Message]) -> bool:
        """Passes on what one request brings. Returns whether it ended as it should."""
        for _ in range(_BATCH):
            message = await _next(arrived)
            if message is None:
                return False
            if not message.reply:
                return status(message) == _EXPIRED_STATUS
            _, _, flow_id, *_ = (*message.subject.split(".", 3), "", "")
            self._wake(flow_id)
        return True

    async def _create(self) -> str:
        name = f"wakeups-{secrets.token_hex(8)}"
        config = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "new",
            # Besides being cheaper: across accounts, the broker takes a delivery without any bytes for the last one.
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _nanoseconds(_INACTIVE),
        }
        await self._bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{name}", {"stream_name": FLOW, "config": config})
        return name

    def _wake(self, flow_id: str) -> None:
        for hint in self._hints.get(flow_id, ()):
            hint.set()


async def _next(arrived: asyncio.Queue[Message]) -> Message | None:
    """The next message, or None if nothing comes although a request should have expired."""
    if not arrived.empty():
        return arrived.get_nowait()
    with suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE.total_seconds()):
            return await arrived.get()
    return None


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
