"""The sequence up to which the coordinators have handled everything in FLOW."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from handrail.mesh.bus import Bus
from handrail.mesh.bus.direct_get import parse_time
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.durables import DECIDE, TRACK


class Handled(NamedTuple):
    """Everything up to `sequence` is handled; `now` is the broker's time. `purgeable` tells whether FLOW lets purge."""

    sequence: int
    now: datetime
    purgeable: bool


async def handled(bus: Bus) -> Handled:
    """Asks the broker how far `decide` and `track` are: a purge takes from them what they did not acknowledge.

    Agents' durables are not waited for: an agent that is gone would keep everything. Raises the errors of
    `Bus.request_json`; without one of these durables, ApiError.
    """
    stream = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    last = int(stream["state"]["last_seq"])
    floors = [_floor(await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{each}"), last) for each in (DECIDE, TRACK)]
    return Handled(min(floors), parse_time(str(stream["ts"])), not stream["config"].get("deny_purge"))


def _floor(info: dict[str, object], last: int) -> int:
    """The sequence up to which a durable needs nothing. Its own floor stays behind what it does not deliver."""
    if not info.get("num_pending") and not info.get("num_ack_pending"):
        return last
    floor = info["ack_floor"]
    assert isinstance(floor, dict)
    return int(floor["stream_seq"])
