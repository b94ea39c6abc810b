"""Wakes the watches of a replica when something is stored in their flows.

What agents publish can't be heard in the coordinator's account. So one consumer of FLOW, without acknowledgements and
without bodies, tells this process what is stored in the watched flows. It is for hints only: a watch that misses one
looks later by itself.

Who may watch must not be able to burden the broker by it. So the consumer outlives the last watch for a while, and
watches that come and go change it once a second at most.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import nats.errors

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message, status
from handrail.mesh.errors import HandrailError
from handrail.mesh.instants import in_nanoseconds
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.subjects import flow_filter

_Flow = tuple[str, str]
"""Flow type and flow id."""

_logger = logging.getLogger(__name__)

_BATCH = 1024
"""Messages of one request."""

_EXPIRES = timedelta(seconds=1)
"""How long a request lasts. Between two requests, the consumer is adapted to the watched flows."""

_SILENCE = timedelta(seconds=3)
"""The consumer counts as lost after this time without an answer."""

_EXPIRED_STATUS = "408"

_INACTIVE = timedelta(seconds=5)
"""How long the broker keeps the consumer after the last request."""

_LINGER = timedelta(seconds=10)
"""How long the consumer is kept after the last watch: watches that come and go share it."""

_MOST_FILTERS = 64
"""Flows that the consumer picks out. If more are watched, it tells of every message that FLOW stores."""

_EVERYTHING = "flow.>"
"""Written out: if an update takes all filters away, nats-server 2.15.1 delivers news only at the next request."""

_AGAIN = timedelta(seconds=1)
"""The time from a lost consumer, or one that can't be created, to the next."""


class Wakeups:
    """The hints for all watches of one replica."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._hints: defaultdict[_Flow, set[asyncio.Event]] = defaultdict(set)
        self._wanted_at = 0.0
        self._listening: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, flow_type: str, flow_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something may have been stored in this flow. Clear it before you look.

        What is stored within a second after the begin may set it late.
        """
        flow, hint = (flow_type, flow_id), asyncio.Event()
        self._hints[flow].add(hint)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name="wakeups")
        try:
            yield hint
        finally:
            self._hints[flow].discard(hint)
            if not self._hints[flow]:
                del self._hints[flow]
            self._wanted_at = asyncio.get_running_loop().time()

    def _wanted(self) -> bool:
        """Whether there is a watch, or was one a moment ago."""
        idle = asyncio.get_running_loop().time() - self._wanted_at
        return not self._bus.closed.is_set() and (bool(self._hints) or idle < _LINGER.total_seconds())

    async def _listen(self) -> None:
        """Keeps a consumer open for as long as it is wanted. No failure ends it."""
        while self._wanted():
            try:
                await self._until_lost()
            except HandrailError as error:
                _logger.warning("watches look for news from time to time only: %s", error)
            except Exception:
                _logger.exception("watches look for news from time to time only")
            await asyncio.sleep(_AGAIN.total_seconds())

    async def _until_lost(self) -> None:
        """Passes on what a new consumer delivers, until it is lost with a connection or a leader, or not wanted."""
        connection = self._bus.connection
        inbox = connection.inbox.new_prefix()
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        subscription = await connection.subscribe(f"{inbox}.*", arrived.put_nowait)
        request = json.dumps({"batch": _BATCH, "expires": _nanoseconds(_EXPIRES)}).encode()
        consumer = _Consumer(self._bus)
        try:
            while self._wanted():
                for flow in await consumer.adapt(self._hints.keys()):
                    self._wake(flow)  # it may have missed what was stored before
                connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{FLOW}.{consumer.name}", request, reply=f"{inbox}.1")
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
            _, flow_type, flow_id, *_ = (*message.subject.split(".", 3), "", "")
            self._wake((flow_type, flow_id))
        return True

    def _wake(self, flow: _Flow) -> None:
        for hint in self._hints.get(flow, ()):
            hint.set()


class _Consumer:
    """One consumer of FLOW, which picks out flows. The broker forgets it when nobody pulls from it any more."""

    def __init__(self, bus: NatsBus) -> None:
        self.name = f"wakeups-{secrets.token_hex(8)}"
        self._bus = bus
        self._flows: frozenset[_Flow] = frozenset()
        self._filters: list[str] | None = None
        self._adapted_at = -math.inf

    async def adapt(self, flows: Collection[_Flow]) -> frozenset[_Flow]:
        """Makes it pick out these flows, creating it if need be. Returns those that are new to it.

        Changes nothing if it changed within the last second, or if there are no flows. Raises the errors of
        `Bus.request_json`.
        """
        loop = asyncio.get_running_loop()
        wanted = frozenset(flows)
        filters = sorted(flow_filter(*flow) for flow in wanted) if len(wanted) <= _MOST_FILTERS else [_EVERYTHING]
        if not wanted or filters == self._filters or loop.time() - self._adapted_at < _EXPIRES.total_seconds():
            return frozenset()
        await self._create(filters)
        new = wanted - self._flows
        self._flows, self._filters, self._adapted_at = wanted, filters, loop.time()
        return new

    async def _create(self, filters: Sequence[str]) -> None:
        """Creates it, or changes its filters."""
        config = {
            "name": self.name,
            "filter_subjects": filters,
            "ack_policy": "none",
            "deliver_policy": "new",
            # Besides being cheaper: across accounts, the broker takes a delivery without any bytes for the last one.
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _nanoseconds(_INACTIVE),
        }
        body = {"stream_name": FLOW, "config": config}
        await self._bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{self.name}", body)


async def _next(arrived: asyncio.Queue[Message]) -> Message | None:
    """The next message, or None if nothing comes although a request should have expired."""
    if not arrived.empty():
        return arrived.get_nowait()
    with suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE.total_seconds()):
            return await arrived.get()
    return None


def _nanoseconds(duration: timedelta) -> int:
    return in_nanoseconds(duration)
