"""Outcomes in the FLOW stream: the first one under an id is stored, and every later one is told which that was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.streams.streams import FLOW
from handrail.mesh.waiting import Patience
from handrail.mesh.wire.envelope import Entry, Recorded, decode
from handrail.mesh.wire.subjects import Address, outcome_filter

_PATIENCE = timedelta(seconds=2)
"""How long an outcome that is said to be there, and is not to be seen, is looked for."""

_TRIES = 5
"""How often an outcome is published that is refused though nothing is stored in its place."""


async def store(
    bus: Bus, entry: Entry, *, first_of_any: bool = True, headers: Mapping[str, str] | None = None
) -> int | Recorded:
    """Store an outcome; returns its sequence, or what the stream holds under its id already.

    With `first_of_any` a message of another kind or type under the same id counts as the first one too. Raises what
    `Bus.publish` raises, and BrokerUnavailable where it is refused again and again though nothing is there.
    """
    sequence, place = (0, _place(entry.address)) if first_of_any else (None, None)
    for _ in range(_TRIES):
        try:
            return await bus.publish(
                entry.address.subject, entry.body, expected_sequence=sequence, expected_filter=place, headers=headers
            )
        except (AlreadyStored, WrongSequence):
            there = await stored(bus, entry.address)
            if there is not None:
                return there
            # The copy that was there died in flight with its leader.
    raise BrokerUnavailable(f"{entry.address.subject} was refused {_TRIES} times, and nothing is stored there")


async def stored(bus: Bus, address: Address, *, patience: timedelta = _PATIENCE) -> Recorded | None:
    """The outcome that the stream holds under this id, whatever its kind and type; the first one where there are
    several.

    For the confirmation of an "already there": a replica and the leader are asked again for `patience`, then None. On a
    replicated stream that means that the first copy died in flight with its leader: publish again.
    """
    place = _place(address)
    looks = Patience(patience)
    while True:
        page = await bus.direct_get(FLOW, multi_last=[place])
        found = next(filter(None, map(readable, page.messages)), None) or await on_leader(bus, place)
        if found is not None or not await looks.wait():
            return found


async def on_leader(bus: Bus, subject_filter: str) -> Recorded | None:
    """The newest message of the FLOW stream that matches, as its leader has it; None where it can't be read."""
    message = await bus.last_on_leader(FLOW, subject_filter)
    return None if message is None else readable(message)


def readable(message: RawMessage) -> Recorded | None:
    """A message of the FLOW stream; None where it can't be read."""
    try:
        return decode(message.subject, message.body, sequence=message.sequence, time=message.time)
    except HandrailError:
        return None


def _place(address: Address) -> str:
    return outcome_filter(address.flow_type, address.flow_id, address.agent, address.event_id)
