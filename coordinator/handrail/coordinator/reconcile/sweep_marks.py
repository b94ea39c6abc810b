"""The mark of the sweep: how far it came, kept in the bucket `leases` so that the next replica continues there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from handrail.mesh.bus import ApiError, Bus
from handrail.mesh.bus.api import MESSAGE_NOT_FOUND
from handrail.mesh.streams import FLOW, LEASES, LEASES_BUCKET, TIMER
from handrail.mesh.streams.streams import created

_SUBJECT = f"$KV.{LEASES_BUCKET}.sweep.mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Everything in FLOW up to `sequence` was walked over, except the flows `left` (type, id, newest sequence).

    Open flows whose last message is at `seen` or before were looked at, as far as the index had them.

    `flow_created` and `timer_created` distinguish the streams from others of the same name. `timer_sequence` is TIMER's
    last sequence at that time: a smaller one means that TIMER was restored or lost messages.
    """

    sequence: int = 0
    seen: int = 0
    flow_created: str = ""
    timer_created: str = ""
    timer_sequence: int = 0
    left: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """FLOW and TIMER now: when they were created, and their last sequences.

    `flow_begun` is when FLOW was first created, by which readers know it.
    """

    flow_created: str
    flow_sequence: int
    flow_begun: str
    timer_created: str
    timer_sequence: int

    def flow_replaced(self, before: Streams) -> bool:
        """Tells whether FLOW is another stream than before, or lost messages since."""
        return self.flow_created != before.flow_created or self.flow_sequence < before.flow_sequence

    def why_not_behind(self, mark: Mark) -> str:
        """Returns why these are not later states of the mark's streams; empty if they are."""
        if not mark.flow_created:
            return "no sweep has run yet"
        if (self.flow_created, self.timer_created) != (mark.flow_created, mark.timer_created):
            return "a stream was recreated"
        if self.flow_sequence < max(mark.sequence, mark.seen) or self.timer_sequence < mark.timer_sequence:
            return "a stream has lost messages, or was restored"
        return ""


async def read_streams(bus: Bus) -> Streams:
    """Reads the state of the streams; raises what `Bus.request_json` raises."""
    flow, timer = [await bus.request_json(f"$JS.API.STREAM.INFO.{name}") for name in (FLOW, TIMER)]
    return Streams(
        flow_created=str(flow["created"]),
        flow_sequence=int(flow["state"]["last_seq"]),
        flow_begun=created(flow),
        timer_created=str(timer["created"]),
        timer_sequence=int(timer["state"]["last_seq"]),
    )


async def last_before(bus: Bus, time: datetime) -> int:
    """Returns the last sequence that FLOW stored before this time; raises what `Bus.request_json` raises.

    The broker answers with where a consumer would begin, and forgets the consumer at once.
    """
    name = f"scan-{secrets.token_hex(8)}"
    config = {
        "name": name,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "deliver_policy": "by_start_time",
        "opt_start_time": time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "inactive_threshold": 1_000_000,
    }
    created = await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{name}", {"stream_name": FLOW, "config": config})
    return int(created["delivered"]["stream_seq"])


async def first_after(bus: Bus, sequence: int) -> int | None:
    """Returns the first sequence after this one that FLOW has, as its leader knows; None if it has none.

    Raises what `Bus.request_json` raises.
    """
    request = {"seq": sequence + 1, "next_by_subj": "flow.>"}
    try:
        answer = await bus.request_json(f"$JS.API.STREAM.MSG.GET.{FLOW}", request)
    except ApiError as error:
        if error.code == MESSAGE_NOT_FOUND:
            return None
        raise
    return int(answer["message"]["seq"])


async def read_mark(bus: Bus) -> Mark:
    """Reads how far the last sweep came; returns an empty mark if no readable one is stored."""
    message = await bus.last_on_leader(LEASES, _SUBJECT)
    try:
        return _mark(json.loads(message.body)) if message is not None else Mark()
    except (ValueError, KeyError, TypeError):
        return Mark()


async def write_mark(bus: Bus, mark: Mark) -> None:
    """Stores how far this sweep came; raises what `Bus.publish` raises."""
    fields = {name: getattr(mark, name) for name in Mark.__slots__}
    await bus.publish(_SUBJECT, json.dumps(fields).encode())


def _mark(fields: Mapping[str, Any]) -> Mark:
    return Mark(
        sequence=int(fields["sequence"]),
        # Earlier releases write no such field: they look at everything by walking.
        seen=int(fields.get("seen", fields["sequence"])),
        flow_created=str(fields["flow_created"]),
        timer_created=str(fields["timer_created"]),
        timer_sequence=int(fields["timer_sequence"]),
        left=tuple((str(name), str(flow_id), int(sequence)) for name, flow_id, sequence in fields["left"]),
    )
