"""Purges flows as retention does: records what was begun, then removes the messages."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.streams import FLOW, purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import decoded
from handrail.mesh.streams.quarantine_streams import quarantines
from handrail.mesh.streams.streams import quarantine_stream
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.mesh.wire.subjects import Kind, flow_filter
from handrail.v1.failure_pb2 import Quarantined


def old_flow_id() -> str:
    """The id of a flow that began long enough ago to be purged since."""
    return ids.new_flow_id(datetime.now(UTC) - timedelta(hours=1), os.urandom(10))


async def purge(bus: Bus, store: FlowStore, flow_id: str, *, flow_type: str = "refund") -> list[Recorded]:
    """Purges a flow. Returns what it was."""
    history = await store.read(flow_type, flow_id, at_least=await store.newest(flow_type, flow_id))
    first = next(each for each in history if each.kind is Kind.EVENT and not each.event.step)
    await purged.record(bus, first)
    await wipe(bus, flow_id, flow_type=flow_type)
    return list(history)


async def wipe(bus: Bus, flow_id: str, *, flow_type: str = "refund") -> None:
    """Removes the messages of a flow from FLOW."""
    wanted = flow_filter(flow_type, flow_id)
    await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"filter": wanted})


async def wipe_one(bus: Bus, entry: Entry) -> None:
    """Removes one message from FLOW, as a purge does that is cut off after it."""
    await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"filter": entry.address.subject})


async def left(bus: Bus, flow_id: str, *, flow_type: str = "refund") -> list[Recorded]:
    """The messages that FLOW has of a flow."""
    page = await bus.direct_get(FLOW, multi_last=[flow_filter(flow_type, flow_id)])
    return list(decoded(page.messages))


async def quarantined(bus: Bus) -> dict[str, Quarantined]:
    """What is in quarantine, by subject."""
    found: dict[str, Quarantined] = {}
    for agent in await quarantines(bus):
        page = await bus.read_forward(quarantine_stream(agent), "quarantine.>", from_sequence=1, limit=100)
        for message in page.messages:
            kept = Quarantined.FromString(message.body)
            found[kept.subject] = kept
    return found
