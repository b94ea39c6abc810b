"""A message as a row of an export. Pure.

A row shows what a message says. Whether it counts in its flow, only the fold tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.instants import from_nanoseconds
from handrail.mesh.wire.envelope import Recorded, decode
from handrail.mesh.wire.subjects import Address, parse
from handrail.visibility.archive.frame import Record

ContractsOf = Callable[[str, int], Contracts]
"""The contracts of a version of a flow type: those of Handrail's own messages, if no others are known."""


class Row(NamedTuple):
    """A message. `time` is the stream's.

    `payload` is what it says, as JSON; if that can't be told, `raw` is the whole message. `subject` is there if it is
    no address of a message; then the parts of the address are not there.
    """

    sequence: int
    time: datetime
    flow_type: str | None = None
    flow_id: str | None = None
    kind: str | None = None
    agent: str | None = None
    event_id: str | None = None
    message_type: str | None = None
    template_version: int | None = None
    step: str | None = None
    attempt: int | None = None
    payload: str | None = None
    raw: bytes | None = None
    subject: str | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 200 + len(self.payload or "") + len(self.raw or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which messages are exported: stored from `since` on and before `until`, of these flow types (none: of all)."""

    since: datetime | None = None
    until: datetime | None = None
    flow_types: frozenset[str] = frozenset()

    def has(self, time: datetime, address: Address | None) -> bool:
        """Whether a message is wanted."""
        return (
            (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
            and (not self.flow_types or (address is not None and address.flow_type in self.flow_types))
        )


def row_of(record: Record, wanted: Wanted, contracts_of: ContractsOf) -> Row | None:
    """The row of a message; None if it is not wanted. Raises what `contracts_of` raises."""
    time = from_nanoseconds(record.time_ns)
    address = _address(record.subject)
    if not wanted.has(time, address):
        return None
    if address is None:
        subject = record.subject.encode(errors="replace").decode()
        return Row(record.sequence, time, subject=subject, raw=record.body)
    recorded = _recorded(record, time)
    if recorded is None:
        return Row(record.sequence, time, *_parts(address), raw=record.body)
    event, payload = recorded.event, _payload(recorded, contracts_of)
    return Row(
        record.sequence,
        time,
        *_parts(address),
        event.template_version,
        event.step,
        event.attempt,
        payload,
        record.body if payload is None else None,
    )


def _parts(address: Address) -> tuple[str, str, str, str, str, str]:
    return (*address[:2], address.kind.value, *address[3:])


def _address(subject: str) -> Address | None:
    try:
        return parse(subject)
    except HandrailError:
        return None


def _recorded(record: Record, time: datetime) -> Recorded | None:
    try:
        return decode(record.subject, record.body, sequence=record.sequence, time=time)
    except HandrailError:
        return None


def _payload(recorded: Recorded, contracts_of: ContractsOf) -> str | None:
    """The payload as JSON; None if there is no contract for it, or it does not fit."""
    contracts = contracts_of(recorded.address.flow_type, recorded.event.template_version)
    try:
        message = contracts.decode(recorded.event.data)
    except HandrailError:
        return None
    return json.dumps(contracts.to_json(message), ensure_ascii=False)
