"""Reads that are new enough: a replica may lag, so a reader says what the answer has to hold, or asks the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from handrail.mesh.bus.bus import Bus
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage
from handrail.mesh.errors import BrokerUnavailable

PATIENCE = timedelta(seconds=2)
"""How long a replica may take to get a message that the leader has."""

FIRST_BACKOFF = 0.02
LAST_BACKOFF = 0.5
"""Seconds between two looks at replicas that lag: the first wait, and the longest."""


async def newest(bus: Bus, stream: str, subject_filter: str) -> int:
    """The sequence of the newest message that matches, as the stream's leader has it now; 0 where there is none."""
    message = await bus.last_on_leader(stream, subject_filter)
    return 0 if message is None else message.sequence


async def by_sequence(
    bus: Bus, stream: str, sequence: int, *, subject_filter: str, patience: timedelta = PATIENCE
) -> RawMessage | None:
    """The message at this very sequence; None where the leader has nothing that new, or no replica has it in time."""
    message = await bus.by_sequence(stream, sequence)
    if message is not None or sequence > await newest(bus, stream, subject_filter):
        return message
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience.total_seconds()
    while message is None and loop.time() < deadline:
        await asyncio.sleep(FIRST_BACKOFF)
        message = await bus.by_sequence(stream, sequence)
    return message


async def read(
    bus: Bus,
    stream: str,
    filters: Sequence[str],
    *,
    at_least: int,
    after: int = 0,
    timeout: timedelta = READ_TIMEOUT,
) -> Page:
    """The last message of each subject that matches, newer than `after`, from a replica that knows `at_least`.

    Asks again until one does. Raises BrokerUnavailable after `timeout`, TooManySubjects as `Bus.direct_get` does.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout.total_seconds()
    backoff = FIRST_BACKOFF
    while True:
        left = timedelta(seconds=max(0.0, deadline - loop.time()))
        page = await bus.direct_get(stream, multi_last=filters, from_seq=after + 1 if after else 0, timeout=left)
        if max(page.up_to_sequence, *(message.sequence for message in page.messages[-1:]), 0) >= at_least:
            return page
        if loop.time() + backoff > deadline:
            raise BrokerUnavailable(
                f"{filters[0]}: no replica of the stream answers with sequence {at_least}; the last one knew "
                f"{page.up_to_sequence}"
            )
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, LAST_BACKOFF)
