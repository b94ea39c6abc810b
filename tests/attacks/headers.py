"""A hostile agent publishes what it may, with headers that look like the broker's own words, to blind whoever reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import grpc

from handrail.mesh.wire import ids
from handrail.v1.approval_service_pb2 import ListApprovalsRequest
from handrail.v1.flow_service_pb2 import Flow, ListFlowsRequest
from tests.attacks.attack import Run, attack, refused, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support import forged
from tests.support.hostile import FORMS
from tests.support.people import People
from tests.support.waiting import eventually

GUARD = "p4_a_header_ends_a_read"
END_OF_READ = FORMS["status 204"]

_numbers = count(1)


async def blind(target: Installation, flow_id: str, headers: bytes) -> None:
    """A divergence of enrichment's with these headers."""
    entry = forged.diverged(flow_id, "enrichment", next(_numbers))
    async with target.raw_as("enrichment") as agent:
        await agent.publish(entry.address.subject, entry.body, headers=headers)


@asynccontextmanager
async def waiting(target: Installation, headers: bytes) -> AsyncIterator[tuple[People, Flow]]:
    """A flow that waits for its two votes and holds such a divergence."""
    async with target.people() as people:
        flow_id = await target.flow_from_start(people, LARGE)
        await people.approval(flow_id)
        await blind(target, flow_id, headers)
        yield people, await people.flow(flow_id)


@attack("1", "Status: 204 on a divergence: nobody can vote", mutant=GUARD)
async def no_vote(target: Installation) -> str:
    async with waiting(target, END_OF_READ) as (people, flow):
        for voter in ("anna", "ben"):
            await people.approve(flow.approvals[0], by=voter)
        await people.until_status(flow.flow_id, "COMPLETED")
    return "both votes were counted, and the flow completed"


@attack("2", "Status: 204 on a divergence: nobody can cancel", mutant=GUARD)
async def no_cancel(target: Installation) -> str:
    async with waiting(target, END_OF_READ) as (people, flow):
        await people.cancel(flow.flow_id)
        await people.until_status(flow.flow_id, "CANCELLED")
    return "the flow was cancelled"


@attack("3", "Status: 204 on a divergence: nobody can compensate", mutant=GUARD)
async def no_compensation(target: Installation) -> str:
    async with waiting(target, END_OF_READ) as (people, flow):
        await people.compensate(flow.flow_id)
        await people.until_status(flow.flow_id, "COMPENSATED")
    return "the flow was compensated"


@attack("8", "an agent makes its flow unstoppable by one header, and the ledger pays what was cancelled", mutant=GUARD)
async def unstoppable(target: Installation) -> str:
    async with waiting(target, END_OF_READ) as (people, flow):
        await people.cancel(flow.flow_id)
        for voter in ("anna", "ben"):
            try:
                await people.approve(flow.approvals[0], by=voter)
            except grpc.aio.AioRpcError:
                continue
            succeeded(f"{voter} could approve what was cancelled")
        ended = await people.until_status(flow.flow_id, "CANCELLED")
        return refused("cancelled, votes refused, nothing paid", unless=ended.effects)


@attack("9", "one header of refunds: the ledger pays behind it, and nobody sees or undoes the payment", mutant=GUARD)
async def hidden_payment(target: Installation) -> str:
    with target.silenced("refunds"):
        async with target.people() as people, target.raw_as("refunds") as refunds:
            claim = target.claim()
            flow_id = (await people.start(claim)).flow_id
            await eventually(lambda: people.events(flow_id), lambda found: len(found) == 2)
            grant = forged.small(claim.amount.units, chargeback=claim.chargeback_id)
            entry = forged.outcome(flow_id, "refunds", "grant", grant, root=forged.enriched_id(flow_id))
            await refunds.publish(entry.address.subject, entry.body, headers=END_OF_READ)
            await people.until_status(flow_id, "COMPLETED")
            effects = [each.step for each in (await people.flow(flow_id)).effects]
            await people.compensate(flow_id)
            # The letter to the customer can't be undone; the payment can.
            await eventually(lambda: taken_back(target, claim.chargeback_id))
    if "pay" not in effects:
        succeeded(f"GetFlow shows the effects {effects}")
    return "GetFlow shows the payment, and it was taken back"


async def taken_back(target: Installation, chargeback_id: str) -> bool:
    """Whether the book holds the payment and its reversal."""
    return target.transfers(chargeback_id) == 2


def hidden(form: str) -> Run:
    """Blinds all lists with one form of headers on a divergence."""

    async def hide(target: Installation) -> str:
        async with waiting(target, FORMS[form]) as (people, flow):
            return await all_listed(people, flow.flow_id)

    return hide


async def all_listed(people: People, flow_id: str) -> str:
    """Both lists show this flow and others."""
    by = people.by("vera")
    flows = await people.flows.ListFlows(ListFlowsRequest(scan=True, page_size=500), metadata=by, timeout=10)
    asked = await people.approvals.ListApprovals(
        ListApprovalsRequest(scan=True, page_size=500), metadata=by, timeout=10
    )
    if flow_id not in {each.flow_id for each in flows.flows} & {each.flow_id for each in asked.approvals}:
        succeeded(f"{len(flows.flows)} flows and {len(asked.approvals)} approvals are listed, without it")
    return f"ListFlows and ListApprovals show it among {len(flows.flows)} flows"


for id_, form_ in (("12", "status 500"), ("13", "status 503"), ("15", "status 404"), ("17", "status 408")):
    attack(id_, f"{form_} in one flow blinds ListFlows and ListApprovals", mutant=GUARD)(hidden(form_))


@attack("20", "every header that looks like the broker's, in one flow, stops ListFlows", mutant=GUARD)
async def all_forms(target: Installation) -> str:
    async with waiting(target, END_OF_READ) as (people, flow):
        for headers in FORMS.values():
            await blind(target, flow.flow_id, headers)
        return await all_listed(people, flow.flow_id)


@attack("19", "a first event with Status: 404 hides all older flows from ListFlows", mutant=GUARD)
async def hide_older(target: Installation) -> str:
    async with waiting(target, b"") as (people, flow), target.raw_as("detection") as detection:
        begun = f"{next(_numbers):032x}"
        entry = forged.outcome(begun, "detection", "", target.claim(), root="")
        assert entry.address.event_id == ids.start_id(begun)
        await detection.publish(entry.address.subject, entry.body, headers=FORMS["status 404"])
        return await all_listed(people, flow.flow_id)
