"""Flows that were purged from FLOW: what stream KEY says of them, and how to tell them from flows that never began.

Whoever purges a flow calls `record` first, at least a minute before: a call that begins a flow may have looked at KEY
just now. A flow with a random id needs no record, because nobody can begin it again.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.instants import from_micros
from handrail.mesh.streams.streams import KEY
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import IDENTIFIER, key_subject, purged_filter, purged_subject
from handrail.v1.error_reason_pb2 import ErrorReason

LEAST_AGE = timedelta(minutes=15)
"""No flow is purged sooner after its last message."""

_SURELY_THERE = timedelta(minutes=5)
"""For as long after its last message a flow is there, by a clock that is up to nine minutes behind the broker's."""

_LATEST = 1 << 47
"""Milliseconds since 1970; later times, from the year 6429 on, are nobody's."""

_SKEW = timedelta(days=1)
"""How far the clock that made a random id may be from the broker's."""


class Purged(NamedTuple):
    """A flow that was purged, and the sequence of its first event."""

    flow_type: str
    flow_id: str
    first_sequence: int


async def record(bus: Bus, first: Recorded) -> None:
    """Records that the flow with this first event is about to be purged, so that nothing begins it again. Idempotent.

    Raises the errors of `Bus.publish`: then don't purge it.
    """
    address = first.address
    minted = _minted_at(address.flow_id)
    if minted is not None and abs(minted - first.time) < _SKEW:
        return
    key_hash = _key_hash(first)
    if key_hash:  # stored when the flow began, unless KEY has forgotten it since
        await _store(bus, key_subject(address.flow_type, key_hash), address.flow_id)
    await _store(bus, purged_subject(address.flow_type, address.flow_id, first.sequence), address.flow_id)


async def recorded(bus: Bus, flow_type: str, flow_id: str) -> Purged | None:
    """What KEY's leader has about a purged flow; None if it has nothing. The type may be `*`.

    Raises the errors of `Bus.last_on_leader`.
    """
    message = await bus.last_on_leader(KEY, purged_filter(flow_type, flow_id))
    if message is None:
        return None
    _, named, _, sequence = message.subject.split(".")
    return Purged(named, flow_id, int(sequence) if sequence.isdigit() else 0)


async def may_be_purged(bus: Bus, flow_type: str, flow_id: str) -> bool:
    """Tells whether a flow that has messages, but no first event, was purged; False if it never began.

    A random id that is old enough counts as purged: nothing in the broker tells. Raises what `recorded` raises.
    """
    minted = _minted_at(flow_id)
    if minted is not None and datetime.now(UTC) - minted >= LEAST_AGE:
        return True
    return await recorded(bus, flow_type, flow_id) is not None


def may_have_left(last_time: datetime | None) -> bool:
    """Tells whether a flow that was read up to a message of this time may be purged by now, or a part of it."""
    return last_time is None or datetime.now(UTC) - last_time >= _SURELY_THERE


def archived(flow_type: str, flow_id: str, why: str = "") -> HandrailError:
    """Returns the error for a flow that was purged: FLOW_ARCHIVED. `why` it is not shown, if it was asked for."""
    return HandrailError(
        ErrorReason.ERROR_REASON_FLOW_ARCHIVED,
        f"{flow_type} flow {flow_id} ended, and is in the archive only: nothing that is said about it now changes it"
        + (f"; {why}" if why else ""),
        flow_id=flow_id,
    )


def _minted_at(flow_id: str) -> datetime | None:
    """When a random id was made, a UUIDv7, by the clock of whoever made it; None for an id of another kind.

    One in 64 derived ids looks the same, with a time that has nothing to do with its flow.
    """
    value = int(flow_id, 16)
    if (value >> 76) & 0xF != 0x7 or (value >> 62) & 0x3 != 0x2:
        return None
    milliseconds = value >> 80
    return from_micros(milliseconds * 1000) if milliseconds < _LATEST else None


def _key_hash(first: Recorded) -> str:
    """The token of the flow's key in KEY; empty if its first event says none, or one that can't be its own.

    Whoever begins a flow writes these fields: without the key itself, only the form of the token can be checked.
    """
    said, (flow_type, flow_id, *_) = first.event, first.address
    if not said.key:
        return said.key_hash if IDENTIFIER.fullmatch(said.key_hash) else ""
    is_its_own = ids.flow_id_from_key(flow_type, said.key) == flow_id
    return ids.key_hash(flow_type, said.key) if is_its_own else ""


async def _store(bus: Bus, subject: str, flow_id: str) -> None:
    with suppress(AlreadyStored):
        await bus.publish(subject, flow_id.encode())
