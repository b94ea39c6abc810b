"""A hostile agent takes what the broker handed out to others: deliveries of agents, the coordinator's, timers."""

from __future__ import annotations

import asyncio
from itertools import product

from handrail.mesh.streams import FLOW, TIMER
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, agent_durable
from handrail.mesh.wire import ids
from handrail.v1.event_pb2 import Kind
from tests.attacks.attack import Run, attack, refused
from tests.attacks.installation import LARGE, Installation
from tests.support import forged
from tests.support.hostile import ACKS, acks_like
from tests.support.waiting import eventually

GUARDS = ("p6_an_agent_settles_for_another", "p6_the_accounts_let_any_answer_through")
THIEF = "enrichment"
OWN = (FLOW, agent_durable(THIEF))


async def stolen(target: Installation, stream: str, durable: str, *, until: asyncio.Task[object]) -> list[bytes]:
    """What the thief gets for everything that it can say about a durable's deliveries while a task runs.

    What it may not say the broker refuses with -ERR, which is no loot.
    """
    reply = f"$JS.ACK.{stream}.{durable}.1.3.1.1795733438219533788.0"
    inbox = f"_INBOX_{THIEF}.stolen"
    loot: list[bytes] = []
    async with target.raw_as(THIEF) as thief:
        while not until.done():
            for subject, verb in product(acks_like(reply, own=OWN), ACKS[:4]):
                thief.send(subject, verb, reply=inbox)
            loot += [body for subject, body in await thief.heard() if subject == inbox.encode()]
    return loot


def theft(stream: str, durable: str) -> Run:
    """Steals from one durable while flows run; each has to end as if there were no thief."""

    async def steal(target: Installation) -> str:
        flows = asyncio.create_task(all_end(target, small=4, large=1))
        loot = await stolen(target, stream, durable, until=flows)
        return refused(f"nothing came of {durable}'s deliveries, and {await flows}", unless=loot)

    return steal


async def all_end(target: Installation, *, small: int, large: int) -> str:
    """Flows that run to their end, the large ones with their two votes."""
    async with target.people() as people:
        paid = [await target.flow_from_start(people) for _ in range(small)]
        asking = [await target.flow_from_start(people, LARGE) for _ in range(large)]
        for flow_id in asking:
            approval = await people.approval(flow_id)
            for voter in ("anna", "ben"):
                await people.approve(approval, by=voter)
        for flow_id in (*paid, *asking):
            await people.until_status(flow_id, "COMPLETED")
    return f"{len(paid) + len(asking)} flows ended as they must"


for id_, title, stream_, durable_ in (
    ("4", "+NXT by enrichment on a subject that begins like ledger's deliveries", FLOW, agent_durable("ledger")),
    ("5", "+NXT by enrichment on a subject that begins like refunds' deliveries", FLOW, agent_durable("refunds")),
    ("7", "enrichment steals the coordinator's durable for proposals", FLOW, DECIDE),
    ("7b", "enrichment steals the coordinator's durable for events", FLOW, TRACK),
    ("10", "enrichment steals timers that are due", TIMER, DUE),
):
    attack(id_, title, mutant=GUARDS)(theft(stream_, durable_))


@attack("6", "enrichment steals ledger's deliveries of 12 small refunds", mutant=GUARDS)
async def steal_from_the_ledger(target: Installation) -> str:
    """With the real ledger at work: every refund is paid."""
    flows = asyncio.create_task(all_end(target, small=12, large=0))
    loot = await stolen(target, FLOW, agent_durable("ledger"), until=flows)
    return refused(await flows, unless=loot)


@attack("11", "enrichment steals the timer of its own retry, so that nobody comes back to it", mutant=GUARDS)
async def steal_a_timer(target: Installation) -> str:
    """The step fails by the thief's own word; the coordinator's timer is due a second later."""
    with target.silenced(THIEF):
        async with target.people() as people, target.bus_as(THIEF) as bus:
            flow_id = await target.flow_from_start(people)
            await forged.publish(bus, forged.failed(flow_id, THIEF, "enrich", root=ids.start_id(flow_id)))

            async def kinds() -> list[int]:
                return [each.kind for each in await people.events(flow_id)]

            retried = asyncio.create_task(eventually(kinds, lambda found: Kind.KIND_RETRY in found))
            loot = await stolen(target, TIMER, DUE, until=retried)
            await retried
    return refused("the timer was handled, and the step retried", unless=loot)
