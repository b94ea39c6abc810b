"""P6: a gate that can't be evaluated asks a person, and no agent passes a gate by mistake, by bug, or by being talked
into it. What else the broker refuses is in tests/integration/test_permissions.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from demos.payments import MESSAGES, TEMPLATES
from demos.payments.book import Book
from demos.payments.settings import LEDGER
from handrail.coordinator.api.qualified_id import qualified
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import Approval
from payments.v1.payments_pb2 import LargeRefundGranted, RefundPaid, SmallRefundGranted
from tests.promises.conftest import Build
from tests.promises.forging import ghost, outcome, publish, quarantined
from tests.promises.team import LARGE, REFUND, Team, claim, money
from tests.support.agents import template
from tests.support.api import refused
from tests.support.house import House
from tests.support.nats_server import NatsServer
from tests.support.people import name_of
from tests.support.shop import shop

WHEN = "when: event.amount.units >= 1000"


def large(units: int = LARGE) -> LargeRefundGranted:
    """A refund that needs two people."""
    return LargeRefundGranted(chargeback_id="cb-1", account_id="acc-1", amount=money(units), email="kim@example.com")


# Gates that can't be evaluated.


async def test_p6_a_gate_whose_condition_fails_asks_people(build: Build) -> None:
    house = await build((WHEN, "when: 10000 / event.amount.nanos > 1"))  # a division by zero
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        approval = await people.approval(flow_id)
        assert "can't be evaluated" in approval.gates[0].reason
        assert "zero" in approval.gates[0].reason
        await people.approve(approval, by="anna")
        assert name_of((await people.flow(flow_id)).status) == "WAITING_APPROVAL"
        assert not team.book.calls
        await people.approve(approval, by="ben")
        await people.until_status(flow_id, "COMPLETED")
    assert team.book.balance == LARGE


OFFER = """
name: refund
version: 1
starts_with: [shop.v1.Asked]
started_by: [detection]
completes_with: [shop.v1.Sent]
deadline: 600s
steps:
  - {name: grant, agent: refunds, after: [shop.v1.Asked], emits: [shop.v1.Granted], effect: NONE, timeout: 600s}
  - {name: send, agent: ledger, after: [shop.v1.Granted], emits: [shop.v1.Sent], effect: NONE, timeout: 600s}
gates:
  - name: dear
    on: shop.v1.Granted
    when: event.prices[0] > 10
    approvers: {roles: [finance], quorum: 1, not_the_requester: true, requester_field: asked_by}
    expires_after: 600s
"""

CONTRACTS = shop(Asked={}, Granted={"prices": "repeated int64", "asked_by": "string"}, Sent={})


async def propose(house: House, *prices: int, asked_by: str) -> str:
    """Begin an offer and propose these prices; the flow's id."""
    flow_id = await house.start(CONTRACTS.message_class("shop.v1.Asked")())
    granted = CONTRACTS.message_class("shop.v1.Granted")(prices=prices, asked_by=asked_by)
    await publish(house, await outcome(house, flow_id, "grant", granted))
    return flow_id


async def test_p6_a_gate_that_asks_for_what_is_not_there_asks_people(build: Build) -> None:
    house = await build(flow_type=Template.compile(load_yaml(OFFER), CONTRACTS))
    async with house.coordinator() as people:
        cheap = await propose(house, 5, asked_by="kim")
        await house.mesh.until(cheap, lambda flow: "shop.v1.Granted" in flow.facts_by_type)
        unpriced = await propose(house, asked_by="kim")
        approval = await people.approval(unpriced)
        assert "can't be evaluated" in approval.gates[0].reason
        assert "shop.v1.Granted" not in (await house.mesh.flow(unpriced)).facts_by_type


async def test_p6_a_gate_that_bars_the_requester_lets_nobody_approve_where_nobody_knows_who_that_is(
    build: Build,
) -> None:
    house = await build(flow_type=Template.compile(load_yaml(OFFER), CONTRACTS))
    async with house.coordinator() as people:
        flow_id = await propose(house, 50, asked_by="")
        flow = await people.until_status(flow_id, "ESCALATED")
        assert "nobody qualifies" in flow.escalations[0].reason
        for voter in ("anna", "ben"):
            found = await house.mesh.flow(flow_id)
            (proposal,) = found.proposals.values()
            seen = Approval(approval_id=qualified(found, proposal.recorded.event_id), digest=proposal.digest)
            assert (await refused(people.approve(seen, by=voter))).reason == "APPROVAL_CLOSED"
        assert "shop.v1.Granted" not in (await house.mesh.flow(flow_id)).facts_by_type


# Votes that don't count.


async def test_p6_neither_the_requester_nor_one_person_twice_nor_a_vote_for_something_else_passes_a_gate(
    house: House,
) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = (await people.start(claim(units=LARGE), by="stan")).flow_id
        approval = await people.approval(flow_id)
        await people.approve(approval, by="anna")
        stored = await house.mesh.messages()
        assert [vote.voter for vote in (await people.approve(approval, by="anna")).votes] == ["anna"]
        assert (await refused(people.reject(approval, by="anna"))).reason == "ALREADY_VOTED"
        for voter, digest, reason in (
            ("stan", "", "REQUESTER_MAY_NOT_VOTE"),
            ("ben", "0" * 64, "DIGEST_MISMATCH"),
            ("vera", "", "MISSING_ROLE"),
        ):
            assert (await refused(people.approve(approval, by=voter, digest=digest))).reason == reason
        assert await house.mesh.messages() == stored, "what does not count is not recorded"
        flow = await people.flow(flow_id)
        assert [vote.voter for vote in flow.approvals[0].votes] == ["anna"]
        assert name_of(flow.status) == "WAITING_APPROVAL"
        assert not team.book.calls


# Agents that try to pass a gate by themselves.


async def test_p6_no_agent_may_publish_a_release_nor_the_gated_type_as_a_plain_event(house: House) -> None:
    team = Team()
    async with house.coordinator() as people, house.working([team.enrichment, team.refunds]):
        flow_id = await house.start(claim(units=LARGE))
        await people.approval(flow_id)
        (proposal,) = (await house.mesh.flow(flow_id)).proposals.values()
        stored = await house.mesh.messages()
        for agent in team.agents:
            bus = await house.connect(agent.name)
            for kind, speaker in ((Kind.RELEASED, "refunds"), (Kind.RELEASED, agent.name), (Kind.EVENT, agent.name)):
                address = proposal.recorded.address._replace(kind=kind, agent=speaker)
                with pytest.raises(BrokerPermission):
                    await bus.publish(address.subject, proposal.recorded.event.SerializeToString())
        assert await house.mesh.messages() == stored
        assert name_of((await people.flow(flow_id)).status) == "WAITING_APPROVAL"


async def test_p6_no_agent_may_speak_for_another(house: House) -> None:
    team = Team()
    async with house.working(team.all_but("ledger", "notification")):
        flow_id = await house.start(claim())
        flow = await house.mesh.until(flow_id, lambda flow: flow.message_count == 3)
        (run,) = [run for run in flow.runs.values() if run.step.name == "pay"]
        entry = ghost(flow).outcome(run, paid())
        for liar in ("refunds", "notification", "enrichment", "detection"):
            bus = await house.connect(liar)
            for speaker in ("ledger", liar):
                with pytest.raises(BrokerPermission):
                    await bus.publish(entry.address._replace(agent=speaker).subject, entry.body)
        assert await house.mesh.messages() == 3


def paid() -> RefundPaid:
    """What the ledger would answer."""
    return RefundPaid(
        chargeback_id="cb-1", account_id="acc-1", amount=money(LARGE), transfer_id="t-1", email="kim@example.com"
    )


@pytest.fixture
async def careless(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[House]:
    """An installation with a broker that grants everybody everything."""
    async with AsyncExitStack() as stack:
        house = House(nats_server, tmp_path, template(REFUND), stack)
        await house.prepare()
        yield house


async def test_p6_the_gated_type_as_a_plain_event_is_void_kept_apart_and_nobody_acts_on_it(careless: House) -> None:
    team = Team()
    async with careless.coordinator() as people, careless.working(team.all_but("refunds")):
        flow_id = await careless.start(claim(units=LARGE))
        flow = await careless.mesh.until(flow_id, lambda flow: flow.message_count == 2)
        (run,) = [run for run in flow.runs.values() if run.step.name == "grant"]
        entry = ghost(flow).outcome(run, large(), kind=Kind.EVENT)
        await publish(careless, entry)
        for reporter in ("ledger", "coordinator"):
            kept = await quarantined(people, reporter=reporter)
            assert kept.reason == ErrorReason.ERROR_REASON_GATE_BYPASSED
            assert (kept.subject, kept.body) == (entry.address.subject, entry.body)
        await careless.mesh.until_settled("ledger")
        after = await careless.mesh.flow(flow_id)
        assert {key: replace(run, refused="") for key, run in after.runs.items()} == flow.runs
        assert [divergence.agent for divergence in after.divergences] == ["refunds"]
    assert not team.book.calls


async def test_p6_an_agent_that_speaks_for_another_is_not_believed(careless: House) -> None:
    team = Team()
    async with careless.coordinator() as people, careless.working(team.all_but("ledger")):
        flow_id = await careless.start(claim())
        flow = await careless.mesh.until(flow_id, lambda flow: flow.message_count == 3)
        (run,) = [run for run in flow.runs.values() if run.step.name == "pay"]
        entry = ghost(flow).outcome(run, paid(), agent="refunds")
        await publish(careless, entry)
        for reporter in ("notification", "coordinator"):
            kept = await quarantined(people, reporter=reporter)
            assert kept.reason == ErrorReason.ERROR_REASON_WRONG_AGENT
            assert (kept.subject, kept.body) == (entry.address.subject, entry.body)
        await careless.mesh.until_settled("notification")
        assert (await careless.mesh.flow(flow_id)).runs == flow.runs
    assert not team.told


async def test_p6_the_demos_ledger_pays_no_large_refund_that_is_dressed_as_a_small_one(build: Build) -> None:
    demo = Template.compile(load_yaml(TEMPLATES[0].read_text()), Contracts.from_messages(MESSAGES))
    house = await build(flow_type=demo)
    book = house.folder / "book.sqlite"
    house.process("ledger", "demos.payments.ledger:agent", **{LEDGER: str(book)})
    team = Team()
    async with house.coordinator() as people, house.working([team.enrichment]):
        flow_id = await house.start(claim(units=LARGE))
        await house.mesh.until(flow_id, lambda flow: flow.message_count == 2)
        dressed = SmallRefundGranted(
            chargeback_id="cb-1", account_id="acc-1", amount=money(LARGE), email="kim@example.com"
        )
        entry = await outcome(house, flow_id, "grant", dressed)
        await publish(house, entry)
        for reporter in ("ledger", "coordinator"):
            kept = await quarantined(people, reporter=reporter)
            assert kept.reason == ErrorReason.ERROR_REASON_CONTRACT_VIOLATION
            assert "amount: a small refund is below 1,000" in kept.detail
            assert kept.body == entry.body
        await house.mesh.until_settled("ledger")
    assert not Book(book).transfers()
