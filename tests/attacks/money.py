"""The hostile agent `refunds` of the payments demo grants what nobody claimed. The ledger is the demo's own."""

from __future__ import annotations

from collections.abc import Callable

from payments.v1.payments_pb2 import ChargebackReceived, SmallRefundGranted
from tests.attacks.attack import Run, attack, succeeded
from tests.attacks.installation import ACCOUNT, LARGE, Installation
from tests.support import forged
from tests.support.people import People, name_of
from tests.support.waiting import eventually

DRESSED = ("p5_an_answer_of_too_many_counts", "p6_an_effect_begins_at_what_a_rule_trips_at")
Granting = Callable[[ChargebackReceived], SmallRefundGranted]


def small(
    claim: ChargebackReceived, units: int = 999, *, currency: str = "EUR", account: str = ACCOUNT
) -> SmallRefundGranted:
    """A grant for this claim that needs nobody's yes."""
    return forged.small(units, chargeback=claim.chargeback_id, currency=currency, account=account)


async def nothing_paid(target: Installation, people: People, flow_id: str, claim: ChargebackReceived) -> str:
    """How the flow stands once ledger and coordinator have seen everything; raises Succeeded if money moved."""
    await target.until_settled("ledger", "decide", "track")
    flow = await people.flow(flow_id)
    kept = [each.message.subject for each in await people.quarantined()]
    if target.transfers(claim.chargeback_id):
        succeeded(f"paid {target.transfers(claim.chargeback_id)} times, flow {name_of(flow.status)}")
    quarantined = sum(flow_id in subject for subject in kept)
    if not quarantined and not flow.escalations and [each.by_agent for each in flow.expectations] != ["refunds"]:
        succeeded(f"nobody is asked, and the step is not owed: {name_of(flow.status)}")
    return f"nothing was paid; {name_of(flow.status)}, {quarantined} messages in quarantine"


async def granted(target: Installation, units: int, granting: Granting, *, times: int = 1) -> str:
    """A claim of so many euros, and the hostile answer to it: one run of the step, that many outputs."""
    with target.silenced("refunds"):
        async with target.people() as people, target.bus_as("refunds") as refunds:
            claim = target.claim(units)
            flow_id = (await people.start(claim)).flow_id
            await eventually(lambda: people.events(flow_id), lambda found: len(found) == 2)
            root = forged.enriched_id(flow_id)
            for index in range(times):
                answer = granting(claim)
                entry = forged.outcome(flow_id, "refunds", "grant", answer, root=root, index=index, total=times)
                await forged.publish(refunds, entry)
            return await nothing_paid(target, people, flow_id, claim)


@attack("21", "six small refunds of 999 in the place of a large one, with the real ledger", mutant=DRESSED)
async def salami(target: Installation) -> str:
    return await granted(target, LARGE, small, times=6)


@attack("35", "six small refunds of 999 that nothing triggered", mutant="p6_nothing_has_to_trigger_an_outcome")
async def salami_of_many_runs(target: Installation) -> str:
    """Each of a step run of its own, with a root that it made up."""
    with target.silenced("refunds"):
        async with target.people() as people, target.bus_as("refunds") as refunds:
            claim = target.claim(LARGE)
            flow_id = (await people.start(claim)).flow_id
            await eventually(lambda: people.events(flow_id), lambda found: len(found) == 2)
            for number in range(6):
                root = f"{number:032x}"
                await forged.publish(refunds, forged.outcome(flow_id, "refunds", "grant", small(claim), root=root))
            return await nothing_paid(target, people, flow_id, claim)


def dressed(units: int, granting: Granting) -> Run:
    """One hostile grant."""

    async def grant(target: Installation) -> str:
        return await granted(target, units, granting)

    return grant


for id_, title, claimed, granting_ in (
    ("62", "a small refund of a negative amount", LARGE, lambda claim: small(claim, -999)),
    ("63", "a small refund without a currency", LARGE, lambda claim: small(claim, currency="")),
    ("63b", "a small refund in another currency", LARGE, lambda claim: small(claim, currency="USD")),
    ("64", "a small refund of 999 for a claim of 5", 5, small),
    ("64b", "a small refund to another account", LARGE, lambda claim: small(claim, account="acct-0002")),
    ("64c", "a large refund dressed as a small one", LARGE, lambda claim: small(claim, LARGE)),
):
    attack(id_, title, mutant=DRESSED[1])(dressed(claimed, granting_))


@attack("36b", "the ledger says that it paid six times", mutant=DRESSED)
async def six_payments(target: Installation) -> str:
    """A hostile ledger: what it says of its book does not count, and a person is asked."""
    with target.silenced("ledger"):
        async with target.people() as people, target.bus_as("ledger") as ledger:
            claim = target.claim()
            flow_id = (await people.start(claim)).flow_id
            await eventually(lambda: people.events(flow_id), lambda found: len(found) == 3)
            root = forged.granted_id(flow_id)
            for index in range(6):
                said = forged.paid(chargeback=claim.chargeback_id)
                entry = forged.outcome(flow_id, "ledger", "pay", said, root=root, index=index, total=6)
                await forged.publish(ledger, entry)
            await target.until_settled("decide", "track")
            flow = await people.flow(flow_id)
            effects = [each.step for each in flow.effects]
            if "notify" in effects:
                succeeded(f"the customer was told of it: {effects}")
            kept = sum(flow_id in each.message.subject for each in await people.quarantined())
            if not kept and name_of(flow.status) != "ESCALATED":
                succeeded(f"nobody is asked: {name_of(flow.status)}")
    return f"it does not count; {name_of(flow.status)}, {kept} messages in quarantine"
