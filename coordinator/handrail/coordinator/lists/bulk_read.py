"""Reads much of a stream, oldest first, as fast as the broker delivers it.

With direct reads the broker counts the remaining messages for every page, and adds three headers per message that take
longer to parse than everything else. A consumer without acknowledgements avoids both: 15 µs per message instead of 100
and more. The consumer lives only in the broker's memory; nothing is written to the stream. The coordinator has no right
to delete consumers, so it has the broker end them: after a short time without requests, at once when a scan ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.subscription import Subscription

from handrail.analysis.replay.stored import Stored
from handrail.mesh.bus import ApiError, NatsBus
from handrail.mesh.bus.api import CONSUMERS_OVERLAP
from handrail.mesh.bus.delivery import place
from handrail.mesh.bus.protocol import Message, parse_headers
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.instants import in_nanoseconds
from handrail.mesh.waiting import Patience, pause

PAGE = 1000
"""Messages per request, unless a scan says otherwise. Two requests are open at once: one is read while the other is in
flight."""

_PAGE_BYTES = 8 << 20
_EXPIRES = 5.0
_INACTIVE = timedelta(seconds=10)
"""How long the broker keeps a consumer that nobody asks, such as that of a process that was killed."""

_AT_ONCE = timedelta(milliseconds=1)
_SILENCE = timedelta(seconds=2)
_PATIENCE = timedelta(seconds=30)


class Scan:
    """The messages that match a filter, from a time or sequence up to a sequence. Create one with `scan`."""

    def __init__(
        self,
        bus: NatsBus,
        stream: str,
        subject_filter: str,
        *,
        since: datetime | None,
        after: int,
        up_to: int | None,
        subjects_only: bool,
        page: int,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._filter = subject_filter
        self._since = since
        self._up_to = up_to
        self._subjects_only = subjects_only
        self._page = page
        self._drained = False
        self._inbox = bus.connection.inbox.new_prefix()
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._config: dict[str, Any] = {}
        self._generation = 0
        self._buffer: list[Stored] = []
        self._arrived = asyncio.Event()
        self._last = after
        self._delivered = 0
        self._asked = 0
        self._broken = False

    async def pages(self) -> AsyncIterator[list[Stored]]:
        """Yields the matching messages in batches. The last one is at `up_to`, which must match the filter; without
        `up_to`, it is the last one that existed at the start.

        Raises BrokerUnavailable if nothing arrives for half a minute.
        """
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        while True:
            if self._broken or not self._consumer:
                await self._begin()
            before = self._delivered
            if not self._complete:
                self._ask()
                self._arrived.clear()
                await pause(self._arrived, _SILENCE)
            page, self._buffer = self._buffer, []
            if page:
                heard_at = loop.time()
                yield page
            elif self._complete:
                return
            elif self._delivered > before and not self._broken:
                heard_at = loop.time()  # a new consumer repeats what came before
            elif loop.time() - heard_at > _PATIENCE.total_seconds():
                raise BrokerUnavailable(
                    f"stream {self._stream} delivered nothing after sequence {self._last} for "
                    f"{_PATIENCE.total_seconds():g} s, although it has more"
                )
            else:
                # The consumer was lost with a connection or a leader: a new one continues after the last message.
                self._broken = True

    @property
    def _complete(self) -> bool:
        """Tells whether everything has arrived."""
        return self._drained if self._up_to is None else self._last >= self._up_to

    async def end(self) -> None:
        """Lets the broker end the consumer."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._let_go()

    async def _let_go(self) -> None:
        """Has the broker end the consumer now."""
        if self._consumer:
            with suppress(HandrailError):
                # What is not acknowledged keeps a consumer for its ack wait.
                waits = {"ack_wait": _AT_ONCE} if self._config["ack_policy"] == "explicit" else {}
                await self._create(inactive_threshold=_AT_ONCE, **waits)

    async def _begin(self) -> None:
        await self._let_go()
        if self._subscription is None:
            self._subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_message)
        config: dict[str, Any] = {
            "ack_policy": "none",
            "filter_subject": self._filter,
            "mem_storage": True,
            "num_replicas": 1,
            "deliver_policy": "all",
        }
        if self._subjects_only:
            # A work queue accepts a consumer only if it acknowledges, starts at the first message and has as many
            # replicas as the stream (0: the same). This one never acknowledges: nothing is taken from the queue.
            config |= {"ack_policy": "explicit", "max_ack_pending": -1, "max_deliver": 1, "headers_only": True}
            config["num_replicas"] = 0
        elif self._last:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}
        elif self._since is not None:
            start = self._since.astimezone(UTC).isoformat().replace("+00:00", "Z")
            config |= {"deliver_policy": "by_start_time", "opt_start_time": start}
        self._consumer, self._config = f"scan-{secrets.token_hex(8)}", config
        self._drained = not (await self._created()).get("num_pending")
        # Messages that an earlier consumer still sends go to another subject and are dropped.
        self._generation += 1
        self._delivered = 0
        self._asked = 0
        self._broken = False

    async def _created(self) -> dict[str, Any]:
        """Creates the consumer. A work queue allows no second one: waits until the broker has ended a former scan's."""
        patience = Patience(2 * _INACTIVE)
        while True:
            try:
                return await self._create(inactive_threshold=_INACTIVE)
            except ApiError as error:
                if error.code != CONSUMERS_OVERLAP or not await patience.wait():
                    raise

    async def _create(self, **waits: timedelta) -> dict[str, Any]:
        """Creates the consumer, or changes how long it waits."""
        nanoseconds = {field: in_nanoseconds(wait) for field, wait in waits.items()}
        config = {**self._config, "name": self._consumer, **nanoseconds}
        return await self._bus.request_json(
            f"$JS.API.CONSUMER.CREATE.{self._stream}.{self._consumer}", {"stream_name": self._stream, "config": config}
        )

    def _ask(self) -> None:
        while self._asked <= self._page:
            self._asked += self._page
            body = {"batch": self._page, "max_bytes": _PAGE_BYTES, "expires": int(_EXPIRES * 1e9)}
            self._bus.connection.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{self._generation}",
            )

    def _on_message(self, message: Message) -> None:
        if self._broken:
            return
        if not message.reply:
            self._on_status(message)
            return
        handed_out = place(message.reply)
        if handed_out is None or handed_out.durable != self._consumer:
            return
        self._delivered += 1
        self._asked -= 1
        if handed_out.nth != self._delivered:
            self._broken = True
            self._arrived.set()
            return
        seen, self._last = self._last, max(self._last, handed_out.sequence)
        self._drained = not handed_out.pending
        if seen < handed_out.sequence <= (self._up_to or handed_out.sequence):
            self._buffer.append(Stored(message.subject, message.data, self._last, handed_out.time // 1000))
        # Across accounts, the broker takes an empty message for the end of all answers, and loses the next ones.
        self._broken = not message.data and not message.block and not self._complete
        if self._asked <= self._page or self._complete or self._drained or self._broken:
            self._arrived.set()

    def _on_status(self, message: Message) -> None:
        """A request ended before it was served in full: it expired, or reached its byte limit."""
        if message.subject != f"{self._inbox}.{self._generation}":
            return
        unserved = parse_headers(message.block).get("Nats-Pending-Messages")
        self._asked = max(0, self._asked - int(unserved)) if unserved else 0
        self._arrived.set()


@asynccontextmanager
async def scan(
    bus: NatsBus,
    stream: str,
    subject_filter: str,
    *,
    since: datetime | None = None,
    after: int = 0,
    up_to: int | None = None,
    subjects_only: bool = False,
    page: int = PAGE,
) -> AsyncIterator[Scan]:
    """Opens a scan for the time of the block; afterwards the broker ends its consumer.

    It starts at the time `since`, or after sequence `after`. `subjects_only` omits the bodies; a work queue allows only
    that. What arrives of two requests, of `page` messages each, is read without a pause, at 6 µs a message.
    """
    reading = Scan(
        bus, stream, subject_filter, since=since, after=after, up_to=up_to, subjects_only=subjects_only, page=page
    )
    try:
        yield reading
    finally:
        await reading.end()
