"""Outcomes in the FLOW stream: the first one under an id is stored, and later publishers get that first one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.bus.publish import Stored
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.streams.purged import archived
from handrail.mesh.streams.streams import FLOW
from handrail.mesh.waiting import Patience
from handrail.mesh.wire.envelope import Entry, Recorded, decode
from handrail.mesh.wire.subjects import Address, flow_filter, outcome_filter

_PATIENCE = timedelta(seconds=2)
"""How long to search for an outcome that the broker reports as stored but no read shows."""

_TRIES = 5
"""How often to publish an outcome that is refused although nothing is stored in its place."""


async def store(
    bus: Bus,
    entry: Entry,
    *,
    first_of_any: bool = True,
    only_with: Recorded | None = None,
    headers: Mapping[str, str] | None = None,
) -> int | Recorded:
    """Stores an outcome. Returns its sequence, or the message already stored under its id.

    With `first_of_any`, a message of another kind or type under the same id counts as the first one too. With
    `only_with`, the outcome is stored only if FLOW still has that message of its flow; both together take a read, and
    leave the time in between. Raises FLOW_ARCHIVED without that message, the errors of `Bus.publish`, and
    BrokerUnavailable if it is refused repeatedly although nothing is stored.
    """
    sequence, place = (0, _place(entry.address)) if first_of_any else (None, None)
    if only_with is not None and first_of_any:
        await _require(bus, only_with)
    elif only_with is not None:
        sequence, place = only_with.sequence, only_with.address.subject
    for _ in range(_TRIES):
        try:
            return await bus.publish(
                entry.address.subject, entry.body, expected_sequence=sequence, expected_filter=place, headers=headers
            )
        except (AlreadyStored, WrongSequence):
            if only_with is not None:
                await _require(bus, only_with)
            there = await stored(bus, entry.address)
            if there is not None:
                return there
            # The copy that was there died in flight with its leader.
    raise BrokerUnavailable(f"{entry.address.subject} was refused {_TRIES} times, and nothing is stored there")


def store_nowait(bus: Bus, entry: Entry, on_stored: Stored, *, first_of_any: bool = True, right_after: int = 0) -> None:
    """Stores an outcome without a wait. Calls `on_stored` once, from the event loop, with its sequence or an error.

    With `right_after`, it is stored only if that is the sequence of the flow's last message. After an error, `store`
    tells what is stored.
    """
    address = entry.address
    if right_after:
        sequence, place = right_after, flow_filter(address.flow_type, address.flow_id)
    elif first_of_any:
        sequence, place = 0, _place(address)
    else:
        sequence, place = None, None
    bus.publish_nowait(address.subject, entry.body, on_stored, expected_sequence=sequence, expected_filter=place)


async def stored(bus: Bus, address: Address, *, patience: timedelta = _PATIENCE) -> Recorded | None:
    """The outcome stored under this id, of any kind and type; the first one of several.

    Confirms an "already stored" from the broker: asks a replica and the leader again for `patience`, then returns None.
    On a replicated stream None means that the first copy was lost in flight with its leader: publish again.
    """
    place = _place(address)
    looks = Patience(patience)
    while True:
        page = await bus.direct_get(FLOW, multi_last=[place])
        found = next(filter(None, map(readable, page.messages)), None) or await on_leader(bus, place)
        if found is not None or not await looks.wait():
            return found


async def on_leader(bus: Bus, subject_filter: str) -> Recorded | None:
    """The newest message of the FLOW stream that matches, from its leader; None if none is readable."""
    message = await bus.last_on_leader(FLOW, subject_filter)
    return None if message is None else readable(message)


def readable(message: RawMessage) -> Recorded | None:
    """Decodes a message of the FLOW stream; None if it is unreadable."""
    try:
        return decode(message.subject, message.body, sequence=message.sequence, time=message.time)
    except HandrailError:
        return None


async def _require(bus: Bus, recorded: Recorded) -> None:
    """Raises FLOW_ARCHIVED if the leader of FLOW no longer has this message."""
    address = recorded.address
    there = await bus.last_on_leader(FLOW, address.subject)
    if there is None or there.sequence != recorded.sequence:
        raise archived(address.flow_type, address.flow_id)


def _place(address: Address) -> str:
    return outcome_filter(address.flow_type, address.flow_id, address.agent, address.event_id)
