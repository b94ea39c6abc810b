"""Reads the messages of some flow types, as one of the broker's readers (docs/readers.md).

    async for message in read(bus, "analytics", after=last):
        ...
        last = message.sequence

New messages come as soon as they are stored. The headers, which the publishers chose, are left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from typing import Any

import nats.errors

from handrail.mesh.bus import ApiError, NatsBus, RawMessage
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.bus.delivery import place
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import reader_durable
from handrail.mesh.streams.readers import EVERYTHING, require_everything
from handrail.mesh.streams.streams import FLOW
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

_BATCH = 256
"""Messages of one request. At most as many wait in this process."""

_CALM = 1000
"""After a loss, or an empty message, as many messages are requested one by one. Across accounts, the broker takes an
empty message for the end of a request: nothing gets lost behind it if its request asked for no more.
"""

_EXPIRES = timedelta(seconds=3)
_LATE = timedelta(seconds=1)
"""How long a request lasts, and how late the broker's word of its end may be."""

_PAUSE = _EXPIRES + _LATE
_LONGEST_PAUSE = timedelta(seconds=32)
"""After a loss, the pause before the durable is reset; it doubles while nothing comes. A reset ends no request: the
broker would serve the former one in turn with the next, and every second delivery would get lost.
"""

_OFTEN = 3
"""After as many losses, each within this time after the one before it, another process is suspected."""
_SOON = timedelta(minutes=2)


IsAbsent = Callable[[int, int], bool]
"""Whether it is known that FLOW has none of the sequences from the first to the last."""


def nothing_is_known(first: int, last: int) -> bool:
    """Knows of no sequence that it is absent."""
    return False


def _whatever(first: int, last: int) -> bool:
    """Asks for nothing that was not delivered."""
    return True


async def read(
    bus: NatsBus, reader: str, *, after: int = 0, whole: bool = False, is_absent: IsAbsent = nothing_is_known
) -> AsyncGenerator[RawMessage, None]:
    """Yields the messages of the reader's flow types that have a sequence beyond `after`, in stream order, each once,
    and never ends.

    The broker forgets what it delivered, so a loss is noticed by its numbers, and read again after a pause of at least
    4 seconds. Only one process may read under one name at a time; the log says so if another seems to. Raises
    BrokerUnavailable if there is no answer in time: read again, after the last sequence. Raises BrokerPermission, and
    ApiError if the reader has no durable.

    `whole` is for a user that may ask the stream's leader: sequences that were not delivered are passed over only if
    the leader does not have them either. It is not asked where `is_absent` knows it. Raises FOREIGN_STREAM if the
    durable does not deliver everything, or if FLOW was restored to a state before the last message that was yielded.
    """
    async with aclosing(read_pages(bus, reader, after=after, whole=whole, is_absent=is_absent)) as pages:
        async for page in pages:
            for message in page:
                yield message


async def read_pages(
    bus: NatsBus, reader: str, *, after: int = 0, whole: bool = False, is_absent: IsAbsent = nothing_is_known
) -> AsyncGenerator[Sequence[RawMessage], None]:
    """Like `read`, for whoever takes many messages at once: yields all that have come."""
    durable = reader_durable(reader)
    calm, pause, losses = _CALM, _PAUSE, _Losses(durable)
    last: RawMessage | None = None
    while True:
        before = after
        await _reset(bus, durable, after + 1, whole=whole)
        if whole and last is not None and not await is_stored(bus, last.sequence, last.time):
            raise HandrailError(ErrorReason.ERROR_REASON_FOREIGN_STREAM, f"{FLOW} was restored from a backup")
        async with aclosing(_until_a_loss(bus, durable, calm)) as deliveries:
            async for delivered in deliveries:
                page = await _in_order(bus, after, delivered, is_absent if whole else _whatever)
                if page:
                    yield page
                    last, after = page[-1], page[-1].sequence
                if len(page) < len(delivered):
                    break
        if last is None or last.body:
            losses.count()
        calm = 0
        pause = _PAUSE if after > before else min(2 * pause, _LONGEST_PAUSE)
        await asyncio.sleep(pause.total_seconds())


async def _in_order(
    bus: NatsBus, after: int, delivered: Sequence[RawMessage], is_absent: IsAbsent
) -> Sequence[RawMessage]:
    """The messages up to the first one that another process had delivered, or before which one got lost."""
    for number, message in enumerate(delivered):
        if message.sequence <= after:
            return delivered[:number]
        is_gap = message.sequence > after + 1 and not is_absent(after + 1, message.sequence - 1)
        if is_gap and await _skipped(bus, after + 1, message.sequence):
            return delivered[:number]
        after = message.sequence
    return delivered


async def is_stored(bus: NatsBus, sequence: int, time: datetime, body: bytes | None = None) -> bool:
    """Whether FLOW's message at this sequence was stored at this time, and has this body, as its leader says.

    True also if it was purged: nobody can tell. Raises the errors of `Bus.request_json`.
    """
    found = await bus.first_on_leader(FLOW, EVERYTHING, from_sequence=sequence)
    if found is None or found.sequence != sequence:
        return True
    return found.time == time and (body is None or found.body == body)


async def _skipped(bus: NatsBus, first: int, delivered: int) -> bool:
    """Whether the leader has a message from `first` on, before the one that was delivered. A leader that lacks even
    that one is not believed.
    """
    found = await bus.first_on_leader(FLOW, EVERYTHING, from_sequence=first)
    return found is None or found.sequence < delivered


class _Losses:
    """Counts losses, and says in the log what makes them frequent."""

    def __init__(self, durable: str) -> None:
        self._durable = durable
        self._clock = asyncio.get_running_loop().time
        self._number = 0
        self._latest = self._clock()

    def count(self) -> None:
        """Counts one."""
        now = self._clock()
        self._number = self._number + 1 if now - self._latest < _SOON.total_seconds() else 1
        self._latest = now
        if self._number % _OFTEN == 0:
            log.warning(
                "%s: deliveries got lost %d times in a row; if another process reads under this name, end one of them",
                self._durable,
                self._number,
            )


async def _reset(bus: NatsBus, durable: str, sequence: int, *, whole: bool) -> None:
    """Has the durable deliver from this sequence on, and count its deliveries from 1."""
    try:
        info = await _info(bus, durable)  # without a durable, a reset gets no answer
    except ApiError as error:
        if error.code == CONSUMER_NOT_FOUND:
            text = f"there is no durable {durable}: create it (handrail admin reader, or setup)"
            raise HandrailError(error.reason, text) from error
        raise
    if whole:
        require_everything(durable, info["config"])
    await bus.request_json(f"$JS.API.CONSUMER.RESET.{FLOW}.{durable}", {"seq": sequence})


async def _until_a_loss(bus: NatsBus, durable: str, calm: int) -> AsyncGenerator[Sequence[RawMessage], None]:
    """Yields what the durable delivers since its reset, until a delivery is missing, or would be.

    `calm` is the number of messages since the last loss or empty message.
    """
    connection = bus.connection
    inbox = connection.inbox.new_prefix()
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await connection.subscribe(f"{inbox}.*", arrived.put_nowait)
    nth = 0
    try:
        while True:
            batch = _BATCH if calm >= _CALM else 1
            wanted = nth + batch
            connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{FLOW}.{durable}", _request(batch), reply=f"{inbox}.{nth}")
            is_open = True
            while nth < wanted and is_open:
                page, is_lost = list[RawMessage](), False
                message = await _next(arrived)
                while True:
                    at = place(message.reply) if message is not None else None
                    if message is None or at is None:
                        is_open = False  # the request has ended
                        break
                    if (at.stream, at.durable, at.nth) != (FLOW, durable, nth + 1):
                        is_lost = True
                        break
                    nth = at.nth
                    page.append(RawMessage(message.subject, message.data, at.sequence, at.stored_at))
                    calm = calm + 1 if message.data else 0
                    is_lost = calm == 0 and nth < wanted  # the broker loses the rest
                    if is_lost or nth == wanted or arrived.empty():
                        break
                    message = arrived.get_nowait()
                if page:
                    yield page
                if is_lost:
                    return
            if nth < wanted and await _delivered(bus, durable) != nth:
                return
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


def _request(batch: int) -> bytes:
    return json.dumps({"batch": batch, "expires": int(_EXPIRES.total_seconds()) * 1_000_000_000}).encode()


async def _next(arrived: asyncio.Queue[Message]) -> Message | None:
    """The next message, or None if nothing comes while a request lasts."""
    with suppress(TimeoutError):
        async with asyncio.timeout((_EXPIRES + _LATE).total_seconds()):
            return await arrived.get()
    return None


async def _delivered(bus: NatsBus, durable: str) -> int:
    """How many messages the durable has delivered since its reset."""
    info = await _info(bus, durable)
    return int(info["delivered"]["consumer_seq"])


async def _info(bus: NatsBus, durable: str) -> dict[str, Any]:
    return await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}")
