"""P3: one fact, one event, whatever is delivered twice, started twice or answered twice.

Redeliveries while a handler works, and racing answers of one type, are in tests/integration/test_agents.py; many
publishers at one subject in test_publish.py and test_cluster.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from handrail.agents import Agent, Context
from handrail.mesh.bus import Delivery
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Choice, EscalationCause
from handrail.v1.event_pb2 import Kind as RecordedKind
from handrail.v1.flow_service_pb2 import EffectStatus, StepRunStatus
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    LargeRefundGranted,
    RefundPaid,
    RefundReversed,
    SmallRefundGranted,
)
from tests.promises.team import SMALL, Team, claim, granted
from tests.support.api import refused
from tests.support.house import House
from tests.support.mesh import name_of_status

WORKING = ("enrichment", "refunds", "ledger", "notification")
ANSWERS = (Kind.EVENT, Kind.PROPOSAL, Kind.RELEASED)
EVENT = RecordedKind.KIND_EVENT


async def test_p3_what_is_delivered_again_because_its_ack_got_lost_gives_no_second_fact(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: Counter[str] = Counter()
    ack = Delivery.ack

    def lose_the_first(self: Delivery) -> None:
        if self.subject.split(".")[1] == "refund" and self.delivered == 1:
            lost[self.subject] += 1
        else:
            ack(self)

    team = Team()
    monkeypatch.setattr(Delivery, "ack", lose_the_first)
    await house.deliver_again_soon()
    async with house.working(team.agents, of_each=2):
        flows = [await house.start(claim(f"cb-{number}")) for number in range(20)]
        for agent in WORKING:
            await house.mesh.until_settled(agent)
        for flow_id in flows:
            flow = await house.mesh.flow(flow_id)
            assert (name_of_status(flow), flow.message_count, flow.divergences) == ("COMPLETED", 5, ())
    assert len(lost) == 20 * 4
    assert len(team.book.calls) == 20, "a redelivery of what is done runs no handler"
    assert sorted(team.told) == sorted(flows)


async def test_p3_a_broker_killed_under_load_brings_no_fact_twice_and_loses_none(house: House) -> None:
    team = Team()
    await house.deliver_again_soon()  # what was on its way to a worker is lost with the server
    async with house.coordinator() as people, house.working(team.agents):
        starting = [asyncio.create_task(house.start(claim(f"cb-{number}"), key=f"k-{number}")) for number in range(150)]
        await house.mesh.until_messages(200)
        house.server.kill()
        house.server.start()
        flows = await asyncio.gather(*starting)
        for flow_id in flows:
            flow = await house.mesh.until_status(flow_id, "COMPLETED")
            assert flow.message_count == 5
            assert not flow.divergences
        assert not (await people.flow(flows[0])).expectations
    assert team.book.balance == 150 * SMALL
    assert {len(set(team.book.calls)), len(set(team.told))} == {150}


async def test_p3_one_key_begins_one_flow_whoever_asks_and_however_often_at_once(house: House) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):

        async def by_agent(agent: Agent) -> tuple[str, bool]:
            started = await agent.start_flow("refund", claim(), key="the-key")
            return started.flow_id, started.already_started

        async def by_person() -> tuple[str, bool]:
            started = await people.start(claim(), key="the-key")
            return started.flow_id, started.already_started

        flow_id = ids.flow_id_from_key("refund", "the-key")
        asked = [ask for _ in range(10) for ask in (by_agent(team.detection), by_agent(team.intake), by_person())]
        assert Counter(await asyncio.gather(*asked)) == {(flow_id, False): 1, (flow_id, True): 29}
        await people.until_status(flow_id, "COMPLETED")
        assert [event.agent for event in await people.events(flow_id)][1:] == list(WORKING)
    assert await house.mesh.messages("KEY") == 1
    assert await house.mesh.messages("FLOW") == 5
    assert len(team.book.calls) == 1


class Undecided(Team):
    """Refunds grants a small refund, and at the same time a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self.both = asyncio.Event()

    async def grant(self, event: ChargebackEnriched, ctx: Context) -> SmallRefundGranted | LargeRefundGranted:
        self.answers += 1
        event.amount.units = SMALL if self.answers == 1 else 5000
        if self.answers == 2:
            self.both.set()
        await self.both.wait()
        return granted(event)


async def test_p3_of_racing_answers_of_different_kinds_one_is_stored_and_the_other_is_recorded(house: House) -> None:
    team = Undecided()
    await house.deliver_again_soon()
    async with house.coordinator() as people, house.working(team.agents, of_each=2):
        flow_id = await house.start(claim())
        flow = await people.until(flow_id, lambda flow: bool(flow.divergences))
        [divergence] = flow.divergences
        history = await house.mesh.store.read("refund", flow_id)
        answers = [each for each in history if each.event.step == "grant" and each.kind in ANSWERS]
        assert len({each.event_id for each in answers}) == 1
        assert len({each.type for each in answers}) == 1, "a release repeats a proposal, nothing else does"
        assert {answers[0].type, divergence.type} == {
            "payments.v1.SmallRefundGranted",
            "payments.v1.LargeRefundGranted",
        }
        assert divergence.agent == "refunds"
        assert answers[0].event_id in divergence.text


async def test_p3_a_retry_after_an_undo_is_a_new_run_with_new_ids_and_a_new_key(house: House) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim())
        await people.until_status(flow_id, "COMPLETED")
        assert (await refused(people.compensate(flow_id, to_step="grant"))).reason == "CONSENT_NEEDED"
        await people.compensate(flow_id, to_step="grant", run_again=["notify"])
        flow = await people.until_status(flow_id, "ESCALATED")
        assert flow.escalations[0].cause == EscalationCause.ESCALATION_CAUSE_COMPENSATED_TO_STEP
        await people.resolve(flow_id, Choice.CHOICE_RESUME)
        flow = await people.until_status(flow_id, "COMPLETED")
        events = await people.events(flow_id)
    first, second = (
        event.event for event in events if (event.kind, event.type) == (EVENT, RefundPaid.DESCRIPTOR.full_name)
    )
    assert (first.run, second.run) == (0, 1)
    assert first.root == second.root
    assert first.event_id != second.event_id
    [reversed_] = [event.event for event in events if event.type == RefundReversed.DESCRIPTOR.full_name]
    assert reversed_.root == first.event_id
    assert team.book.calls == [
        ids.idempotency_key(flow_id, "pay", first.root, 0),
        ids.undo_key(flow_id, first.event_id),
        ids.idempotency_key(flow_id, "pay", first.root, 1),
    ]
    assert team.book.balance == SMALL
    pays = [run for run in flow.step_runs if run.step == "pay"]
    assert [(run.run, run.status) for run in pays] == [(1, StepRunStatus.STEP_RUN_STATUS_DONE)]
    effects = {effect.event_id: effect.status for effect in flow.effects}
    assert effects[first.event_id] == EffectStatus.EFFECT_STATUS_UNDONE
    assert effects[second.event_id] == EffectStatus.EFFECT_STATUS_DONE
    assert not [event for event in events if event.void_reason and event.kind != RecordedKind.KIND_DECISION]
