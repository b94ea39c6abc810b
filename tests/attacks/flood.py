"""The hostile agent `detection` publishes far more than the coordinator can follow, so that others wait."""

from __future__ import annotations

import time
from datetime import timedelta

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event
from tests.attacks.attack import attack, succeeded
from tests.attacks.before_token import health
from tests.attacks.installation import LARGE, Installation
from tests.support import forged
from tests.support.mesh import Mesh
from tests.support.people import name_of
from tests.support.raw_client import RawClient
from tests.support.waiting import eventually

FLOWS = 4_000
DIVERGENCES = 4
"""Reports in each flow, which `decide` has to look at."""

SOON = 5.0
"""Seconds from storing a proposal until a person is asked: one on an idle machine. A busy one may take longer, but only
while the coordinator has a part of the flood before it."""

STORED = timedelta(seconds=60)
"""How long the broker may take to store what it received."""


def first(flow_id: str, message: Message) -> Entry:
    """The first event of a flow."""
    name, event_id = message.DESCRIPTOR.full_name, ids.start_id(flow_id)
    address = Address("refund", flow_id, Kind.EVENT, "detection", event_id, name)
    event = Event(
        event_id=event_id,
        source="detection",
        flow_type="refund",
        flow_id=flow_id,
        template_version=1,
        output_total=1,
        data=pack(message),
    )
    return Entry(address, event)


async def flood(target: Installation, detection: RawClient) -> None:
    """Begins the flows, without waiting for any answer."""
    for number in range(FLOWS):
        flow_id = ids.flow_id_from_key("refund", f"flood-{number}")
        entries = [first(flow_id, target.claim())]
        entries += [forged.diverged(flow_id, "detection", each) for each in range(DIVERGENCES)]
        for entry in entries:
            detection.send(entry.address.subject, entry.body, reply="_INBOX_detection.none")
    await detection.heard()


async def told(target: Installation) -> set[str]:
    """The parts that the coordinator's health names; raises Succeeded if it does not serve."""
    async with target.channel() as channel:
        request = health_pb2.HealthListRequest()  # type: ignore[attr-defined]
        statuses = (await health(channel).List(request)).statuses
    if statuses[""].status != health_pb2.HealthCheckResponse.SERVING:
        succeeded(f"the coordinator does not serve: {sorted(statuses)}")
    serving = health_pb2.HealthCheckResponse.SERVING
    return {name for name, each in statuses.items() if each.status != serving}


async def reached(target: Installation) -> int:
    """The sequence up to which the coordinator's durable has delivered."""
    async with target.bus_as("viewer") as bus:
        return int((await Mesh(bus, Catalog(bus)).durable("decide"))["delivered"]["stream_seq"])


@attack(
    "58",
    "one agent begins 4,000 flows in a second",
    fresh=True,
    mutant=("p7_others_wait_behind_a_flood", "p7_a_flood_is_not_told"),
)
async def begin_flows(target: Installation) -> str:
    """Another agent's proposal is asked, voted and released meanwhile, and the health names the hostile agent."""
    with target.silenced("refunds"):
        async with target.people() as people, target.bus_as("refunds") as refunds, target.raw_as("detection") as raw:
            claim = target.claim(LARGE)
            flow_id = (await people.start(claim)).flow_id
            await eventually(lambda: people.events(flow_id), lambda found: len(found) == 2)
            granted = forged.large(LARGE, chargeback=claim.chargeback_id)
            root = forged.enriched_id(flow_id)
            with target.silenced("enrichment", "ledger", "notification"):
                await flood(target, raw)
                entry = forged.outcome(flow_id, "refunds", "grant", granted, root=root, kind=Kind.PROPOSAL)
                # The broker stores it after what it had received before.
                sequence = await refunds.publish(entry.address.subject, entry.body, timeout=STORED)
                began = time.monotonic()
                approval = await people.approval(flow_id)
                asked, position = time.monotonic() - began, await reached(target)
                if asked > SOON and position >= sequence:
                    succeeded(f"another agent's proposal was asked after {asked:.1f} s, when the flood was handled")
                for person in ("anna", "ben"):
                    await people.approve(approval, by=person)
                await people.until(flow_id, lambda flow: name_of(flow.status) != "WAITING_APPROVAL")
                took = time.monotonic() - began
                await eventually(lambda: told(target), lambda parts: "handrail.part.share.detection" in parts)
    return f"another agent's proposal was released after {took:.1f} s, and the health names share.detection"
