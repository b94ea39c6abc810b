"""Direct reads from a stream: any replica answers, and one request returns many messages.

nats-py reads one message per request; a flow would take one round trip per message.

A read is repeated when the broker falls silent, each time after a longer silence. While messages arrive it goes on,
however long its answer is. A limited number of reads are open at once: a flood of them could otherwise make each so
slow that all are repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage, TooManySubjects, read_end, read_stored
from handrail.mesh.bus.protocol import Message, description, status
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

AT_ONCE = 64
"""Reads that are open at the broker. More are no faster, and large answers to many more could exceed what a broker
keeps for a client, 64 MiB, before it closes the connection.
"""

_TICK = 0.1
"""Seconds."""

_SILENCE = 20
_LONGEST_SILENCE = 40
"""Ticks without a message until a read is repeated; each time they double, up to the longest."""

_LONGEST_PAUSE = 5
"""Ticks until the next try, at most, if no server serves the stream: during an election."""


class DirectReads:
    """The reads over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._open: set[_Read] = set()
        self._queue: deque[_Read] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        connection.on_reconnected.append(self._send_all_again)

    async def read(self, stream: str, request: Mapping[str, Any], *, timeout: timedelta = READ_TIMEOUT) -> Page:
        """One read, repeated without an answer until `timeout`.

        Raises BrokerUnavailable, BrokerPermission, and TooManySubjects.
        """
        if self._connection.closed.is_set():
            raise BrokerUnavailable(self._connection.why_not_connected)
        read = _Read(stream, request, self._loop.time(), timeout.total_seconds())
        if len(self._open) < AT_ONCE:
            self._begin(read)
        else:
            self._queue.append(read)
        try:
            return await read.page
        finally:
            self._end(read)

    def _begin(self, read: _Read) -> None:
        self._open.add(read)
        self._send(read)
        if self._ticking is None:
            self._ticking = self._loop.call_later(_TICK, self._tick)

    def _end(self, read: _Read) -> None:
        if read not in self._open:
            self._queue.remove(read)
            return
        self._open.discard(read)
        self._connection.inbox.forget(read.reply)
        if self._queue:
            self._begin(self._queue.popleft())

    def _send(self, read: _Read) -> None:
        connection = self._connection
        # A late answer to the last try must not mix with the next one.
        connection.inbox.forget(read.reply)
        read.reply = connection.inbox.expect(read)
        read.begin()
        if connection.connected:  # otherwise it is sent with all others after the reconnect
            connection.send(read.subject, read.body, reply=read.reply)

    def _send_all_again(self) -> None:
        for read in self._open:
            self._send(read)

    def _tick(self) -> None:
        now, connected = self._loop.time(), self._connection.connected
        for read in (*self._open, *self._queue):
            if now >= read.deadline or self._connection.closed.is_set():
                read.give_up(read.problem if connected else self._connection.why_not_connected)
            elif connected and read in self._open and read.is_late():
                self._send(read)
        self._ticking = self._loop.call_later(_TICK, self._tick) if self._open else None


class _Read:
    """One read, and the messages that its present try has collected."""

    def __init__(self, stream: str, request: Mapping[str, Any], now: float, seconds: float) -> None:
        self.subject = f"$JS.API.DIRECT.GET.{stream}"
        self.body = json.dumps(request).encode()
        self.page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self.deadline = now + seconds
        self.reply = ""
        self.problem = "others are read first"
        self._stream = stream
        self._seconds = seconds
        self._request = request
        self._many = "batch" in request or "multi_last" in request
        self._messages: list[RawMessage] = []
        self._tries = 0
        self._silence = 0
        self._ticks_left = 0

    def begin(self) -> None:
        """Begins a try."""
        self._messages.clear()
        self._silence = min(_SILENCE << self._tries, _LONGEST_SILENCE)
        self._ticks_left = self._silence
        self._tries += 1
        self.problem = "no answer"

    def is_late(self) -> bool:
        """Called with each tick: whether the next try is due.

        Ticks are counted, not seconds: while this process was busy with other things, the answer may have arrived.
        """
        self._ticks_left -= 1
        return self._ticks_left <= 0

    def give_up(self, why: str) -> None:
        """Ends the read without a result."""
        if not self.page.done():
            text = f"can't read from stream {self._stream} within {self._seconds:g} s: {why}"
            self.page.set_exception(BrokerUnavailable(text))

    def answered(self, message: Message) -> None:
        if self.page.done():
            return
        stored = read_stored(message.block, message.data)
        if stored is None:
            self._ended(message)
        elif self._many:
            self._messages.append(stored)
            self._ticks_left = self._silence
        else:
            self.page.set_result(Page((stored,)))

    def refused(self, error: HandrailError) -> None:
        if not self.page.done():
            self.page.set_exception(error)

    def _ended(self, message: Message) -> None:
        match status(message):
            case "204" | "404":
                self.page.set_result(read_end(self._messages, message))
            case "413":
                self.page.set_exception(TooManySubjects(self._stream, self._request.get("multi_last", ())))
            case "503":
                self.problem = "no server answers for the stream"
                self._ticks_left = min(1 << self._tries - 1, _LONGEST_PAUSE)
            case other:
                text = f"the broker refuses to read from {self._stream}: {other} {description(message)}"
                self.page.set_exception(HandrailError(ErrorReason.ERROR_REASON_INTERNAL, text))
