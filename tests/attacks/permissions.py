"""A hostile agent says what it may not say, or has the broker say it. What the broker refuses on every subject is in
tests/integration/test_permissions.py.
"""

from __future__ import annotations

import json
from datetime import timedelta

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import BrokerPermission, HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support import forged
from tests.support.people import People, name_of

SOON = timedelta(seconds=5)


async def proposal(target: Installation, people: People) -> tuple[str, Entry]:
    """A flow that waits for its two votes, and the proposal that refunds made, as it would look released."""
    claim = target.claim(LARGE)
    flow_id = (await people.start(claim)).flow_id
    await people.approval(flow_id)
    grant = forged.large(LARGE, chargeback=claim.chargeback_id)
    root = forged.enriched_id(flow_id)
    return flow_id, forged.outcome(flow_id, "refunds", "grant", grant, root=root, kind=Kind.RELEASED)


async def said(bus: NatsBus, subject: str, body: bytes) -> None:
    """Publish what is forbidden; raises Succeeded if the broker takes it."""
    try:
        await bus.publish(subject, body, timeout=SOON)
    except BrokerPermission:
        return
    succeeded(f"{bus.name} published on {subject}")


async def still_waits(people: People, flow_id: str, how: str) -> str:
    """Nothing came of it."""
    flow = await people.flow(flow_id)
    return refused(how, unless=name_of(flow.status) != "WAITING_APPROVAL" and name_of(flow.status))


@attack("101", "refunds releases its own proposal", mutant="p6_agents_may_release")
async def release(target: Installation) -> str:
    async with target.people() as people, target.bus_as("refunds") as refunds:
        flow_id, released = await proposal(target, people)
        for kind in (Kind.RELEASED, Kind.EVENT):
            await said(refunds, released.address._replace(kind=kind).subject, released.body)
        return await still_waits(people, flow_id, "the broker refuses a release, and the gated type as a plain event")


@attack("102", "an agent decides, in the coordinator's name and in its own", mutant="p6_an_agent_decides")
async def decide(target: Installation) -> str:
    async with target.people() as people, target.bus_as("refunds") as refunds:
        flow_id, released = await proposal(target, people)
        for kind in (Kind.DECISION, Kind.RETRY, Kind.UNDO):
            for speaker in (COORDINATOR, "refunds"):
                await said(refunds, released.address._replace(kind=kind, agent=speaker).subject, released.body)
        return await still_waits(people, flow_id, "the broker refuses decisions, retries and undos")


@attack("103", "an agent speaks for the ledger", mutant="p6_an_agent_publishes_for_all")
async def speak_for_another(target: Installation) -> str:
    async with target.people() as people, target.bus_as("refunds") as refunds:
        flow_id, released = await proposal(target, people)
        entry = forged.outcome(flow_id, "ledger", "pay", forged.paid(), root=released.address.event_id)
        failure = forged.failed(flow_id, "ledger", "pay", root=released.address.event_id)
        for address in (entry.address, entry.address._replace(agent="refunds"), failure.address):
            await said(refunds, address.subject, entry.body)
        return await still_waits(people, flow_id, "the broker refuses the ledger's messages")


@attack("104", "an agent has the broker answer a read under the released subject", mutant="p6_one_account_for_all")
async def answer_as_release(target: Installation) -> str:
    """The broker asks no permission for a reply subject."""
    async with target.people() as people, target.raw_as("refunds") as refunds:
        flow_id, released = await proposal(target, people)
        proposed = released.address._replace(kind=Kind.PROPOSAL).subject
        forged_reply = released.address.subject
        refunds.send(f"$JS.API.DIRECT.GET.{FLOW}", json.dumps({"multi_last": [proposed]}).encode(), reply=forged_reply)
        refunds.send(f"$JS.API.DIRECT.GET.{FLOW}.{proposed}", b"", reply=forged_reply)
        refunds.send(f"$JS.API.STREAM.INFO.{FLOW}", b"", reply=forged_reply)
        refunds.send("$JS.API.CONSUMER.MSG.NEXT.FLOW.agent-refunds", b"1", reply=forged_reply)
        await refunds.heard()
        await target.until_settled("decide", "track")
        kinds = {each.kind for each in await people.events(flow_id)}
        return await still_waits(
            people, flow_id, f"the answer stayed in the agents' account; {len(kinds)} kinds stored"
        )


@attack("105", "an agent listens to the ledger's inbox, to proposals and to timers", mutant="p6_an_agent_hears_all")
async def listen(target: Installation) -> str:
    async with target.bus_as("refunds") as refunds:
        for subject in ("_INBOX_ledger.>", "_INBOX.>", "flow.>", "due.>", "$JS.ACK.>", ">"):
            try:
                await refunds.subscribe(subject, lambda message: None)
            except BrokerPermission:
                continue
            succeeded(f"it may listen to {subject}")
    return "the broker refuses every subscription but its own inbox and hints"


@attack(
    "107", "a header of an agent's message wipes, hides or schedules messages", mutant="p2_what_happened_may_expire"
)
async def wipe(target: Installation) -> str:
    async with target.people() as people, target.bus_as("enrichment") as agent:
        flow_id, released = await proposal(target, people)
        before = len(await people.events(flow_id))
        for number, headers in enumerate(
            (
                {"Nats-Rollup": "all"},
                {"Nats-Rollup": "sub"},
                {"Nats-TTL": "1s"},
                {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": released.address.subject},
            )
        ):
            entry = forged.diverged(flow_id, "enrichment", number)
            try:
                await agent.publish(entry.address.subject, entry.body, headers=headers, timeout=SOON)
            except HandrailError:
                continue
            succeeded(f"the broker stores a message with {headers}")
        after = len(await people.events(flow_id))
        return refused("the broker refuses each of them", unless=after != before and f"{before} events, then {after}")
