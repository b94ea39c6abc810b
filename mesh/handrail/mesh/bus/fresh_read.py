"""Reads that are guaranteed fresh: replicas may lag, so a reader names a minimum sequence, or asks the leader."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from handrail.mesh.bus.bus import Bus
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.waiting import Patience

_EMPTY = 2
"""After as many reads without a message the leader is asked whether there is any: they may be purged."""

PATIENCE = timedelta(seconds=2)
"""How long a replica may take to receive a message that the leader has."""


async def newest(bus: Bus, stream: str, subject_filter: str) -> int:
    """The sequence of the newest message that matches, from the stream's leader; 0 if none matches."""
    message = await bus.last_on_leader(stream, subject_filter)
    return 0 if message is None else message.sequence


async def by_sequence(
    bus: Bus, stream: str, sequence: int, *, subject_filter: str, patience: timedelta = PATIENCE
) -> RawMessage | None:
    """The message at this sequence; None if the leader has nothing that new, or no replica has it in time."""
    message = await bus.by_sequence(stream, sequence)
    if message is not None or sequence > await newest(bus, stream, subject_filter):
        return message
    looks = Patience(patience)
    while message is None and await looks.wait():
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
    """The last message of each matching subject, newer than `after`, from a replica that has sequence `at_least`.

    Retries until one does, or until the stream's leader has no such message any more. The broker ends an answer of more
    than 64 MiB: then it reads on. Raises BrokerUnavailable after `timeout`, and TooManySubjects like `Bus.direct_get`.
    """
    patience = Patience(timeout)
    empty = 0
    while True:
        page = await _whole(bus, stream, filters, after=after, patience=patience)
        if max(page.up_to_sequence, *(message.sequence for message in page.messages[-1:]), 0) >= at_least:
            return page
        # A replica does not say how far it is if it has nothing on these subjects.
        empty = 0 if page.messages else empty + 1
        if empty == _EMPTY and await _is_gone(bus, stream, filters, after):
            return page
        if not await patience.wait():
            raise BrokerUnavailable(
                f"{filters[0]}: no replica of the stream has sequence {at_least} yet; the last one had "
                f"{page.up_to_sequence}"
            )


async def _whole(bus: Bus, stream: str, filters: Sequence[str], *, after: int, patience: Patience) -> Page:
    """What one replica has, or several: each has everything up to its own position, so the last one says how far it is
    complete.
    """
    messages: list[RawMessage] = []
    while True:
        page = await bus.direct_get(
            stream, multi_last=filters, from_seq=after + 1 if after else 0, timeout=patience.left
        )
        if not page.pending and not messages:
            return page
        messages += page.messages
        after = messages[-1].sequence
        if not page.pending or not page.messages:
            return Page(tuple(messages), up_to_sequence=max(page.up_to_sequence, after))


async def _is_gone(bus: Bus, stream: str, filters: Sequence[str], after: int) -> bool:
    """Tells whether the leader has no matching message newer than `after`."""
    for each in reversed(filters):
        if await newest(bus, stream, each) > after:
            return False
    return True
