"""Which flows run on which version, until when, and why nothing says so of some."""

from __future__ import annotations

from datetime import timedelta

from handrail.agents import Agent
from handrail.coordinator.api.views.usage import EXAMPLES, version_usages, why_unbounded
from handrail.mesh.wire.envelope import from_timestamp
from handrail.testing import World
from handrail.v1.template_service_pb2 import UnboundedReason as Reason
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, RefundPaid, RefundReversed
from tests.support.agents import CHAIN, Chain, paid, received, template

DAY = timedelta(days=1)


async def test_only_flows_that_are_not_over_are_counted_on_the_version_they_began_with() -> None:
    first, second = template(), template(CHAIN, ("version: 1", "version: 2"))
    async with World(templates=[first]) as world:
        old = [await world.start("refund", received(str(number)), by="detection") for number in range(3)]
        await world.put(second)
        await world.advance(timedelta(seconds=10))
        new = await world.start("refund", received("new"), by="detection")
        await world.cancel(old[0])
        flows = [each.flow for each in (*old, new)]
        one, two = version_usages([first, second], flows, active=frozenset({("refund", 2)}), now=world.now)
    assert (one.version, one.active, one.running_flows) == (1, False, 2)
    assert (two.version, two.active, two.running_flows) == (2, True, 1)
    assert from_timestamp(two.oldest_start_time) == new.flow.start_time
    assert from_timestamp(two.latest_deadline) == new.flow.start_time + DAY
    assert one.deadline.ToTimedelta() == DAY


async def test_a_flow_that_waits_for_its_agent_ends_by_its_deadline_at_the_latest() -> None:
    async with World(templates=[template()], agents=[]) as world:
        world.stop_coordinator()
        flow = await world.start("refund", received(), by="detection")
        assert why_unbounded(flow.flow, world.now) == Reason.UNBOUNDED_REASON_UNSPECIFIED
        await world.advance(DAY)
        assert why_unbounded(flow.flow, world.now) == Reason.UNBOUNDED_REASON_OVERDUE


async def test_a_flow_that_escalated_waits_for_a_person_without_a_bound() -> None:
    failing = Agent("enrichment")

    @failing.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        raise RuntimeError("never")

    async with World(templates=[template()], agents=[failing]) as world:
        flow = await world.start("refund", received(), by="detection")
        await world.advance(timedelta(minutes=5))
        assert flow.status == "ESCALATED"
        assert why_unbounded(flow.flow, world.now) == Reason.UNBOUNDED_REASON_ESCALATED
        (usage,) = version_usages([flow.flow.template], [flow.flow] * 25, active=frozenset(), now=world.now)
    assert (usage.running_flows, usage.unbounded_flows, len(usage.examples)) == (25, 25, EXAMPLES)
    assert not usage.HasField("latest_deadline")


async def test_a_flow_that_is_being_undone_has_no_bound() -> None:
    chain = Chain()
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    def pay(event: ChargebackEnriched) -> RefundPaid:
        return paid()

    @ledger.undoes(RefundPaid)
    def take_back(event: RefundPaid) -> RefundReversed:
        raise RuntimeError("not now")

    async with World(templates=[template()], agents=[chain.enrichment, ledger]) as world:
        flow = await world.start("refund", received(), by="detection")
        await world.compensate(flow)
        assert flow.status == "COMPENSATING"
        assert why_unbounded(flow.flow, world.now) == Reason.UNBOUNDED_REASON_HALTED
