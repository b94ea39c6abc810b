"""P7: no silent end. Whatever goes wrong, GetFlow says what is owed, by whom and by when, and why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from handrail.agents import Context, NonRetryable
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import from_timestamp, pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.decision_pb2 import Choice, EscalationCause
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepProgress
from handrail.v1.flow_service_pb2 import EffectStatus, Expectation, Flow, OpenEscalation, StepRunStatus
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.promises.conftest import Build
from tests.promises.team import LARGE, Team, claim
from tests.support.house import House
from tests.support.people import People, name_of
from tests.support.waiting import until

SOON = ("timeout: 600s\n    retry: {max_attempts: 2", "timeout: 1s\n    retry: {max_attempts: 2")
"""Step `enrich` has to answer within a second; it is tried twice."""
AT_ONCE = ("timeout: 600s\n    retry: {max_attempts: 2", "timeout: 0.3s\n    retry: {max_attempts: 2")
PAY_AT_ONCE = ("timeout: 601s\n    retry: {max_attempts: 2", "timeout: 0.3s\n    retry: {max_attempts: 2")
"""Nobody is there who could answer in time."""
COMPENSATED_FOR_IT = ("on_failure: ESCALATE", "on_failure: COMPENSATE")
NO_POLICY = ("    on_failure: ESCALATE\n", "")
EXPIRES_SOON = ("expires_after: 14400s", "expires_after: 1s")
TO_A_PERSON = ("on_expiry: REJECT", "on_expiry: ESCALATE")


def owed(flow: Flow) -> Expectation:
    """The one thing that is owed."""
    [expectation] = flow.expectations
    assert expectation.what
    assert expectation.otherwise
    return expectation


def escalation(flow: Flow, cause: str) -> OpenEscalation:
    """The one matter that waits for a person, which is all that is owed."""
    [opened] = flow.escalations
    assert EscalationCause.Name(opened.cause) == f"ESCALATION_CAUSE_{cause}"
    expectation = owed(flow)
    assert expectation.by_roles == ["operator"]
    assert expectation.subject_id == opened.escalation_id
    assert opened.reason in expectation.what
    assert opened.reason in flow.status_reason
    assert opened.choices
    assert opened.HasField("open_time")
    return opened


async def until_owed_by(people: People, flow_id: str, agent: str) -> Expectation:
    """What an agent owes, once it owes it and nobody owes anything else."""
    return owed(await people.until(flow_id, lambda flow: [each.by_agent for each in flow.expectations] == [agent]))


class Clueless(Team):
    """Enrichment can't do its work, and trying again does not help."""

    async def enrich(self, event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        raise NonRetryable("the customer's file is gone")


async def test_p7_a_failure_that_no_policy_handles_waits_for_an_operator(build: Build) -> None:
    house, team = await build(NO_POLICY), Clueless()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "ESCALATED")
        opened = escalation(flow, "STEP_FAILED")
        assert "NonRetryable: the customer's file is gone" in opened.reason
        assert opened.step == "enrich"
        assert Choice.CHOICE_RETRY in opened.choices
        await people.resolve(flow_id, Choice.CHOICE_FAIL)
        flow = await people.until_status(flow_id, "FAILED")
        assert flow.status_reason == "a test"
        assert not flow.expectations


async def test_p7_a_step_whose_agent_is_lost_is_tried_again_and_then_waits_for_an_operator(build: Build) -> None:
    house, team = await build(SOON), Team()
    async with house.coordinator() as people:
        flow_id = await house.start(claim())
        first = await until_owed_by(people, flow_id, "enrichment")
        assert "ChargebackEnriched" in first.what
        assert "retried" in first.otherwise
        assert from_timestamp(first.due_time) - datetime.now(UTC) < timedelta(seconds=1)
        last = await people.until(flow_id, lambda flow: "attempt 2 of 2" in "".join(e.what for e in flow.expectations))
        assert [(each.by_agent, each.otherwise) for each in last.expectations if each.by_agent == "enrichment"] in (
            [],  # the second attempt is still to be ordered
            [("enrichment", "a person is asked")],
        )
        flow = await people.until_status(flow_id, "ESCALATED")
        opened = escalation(flow, "STEP_FAILED")
        assert "2 attempts" in opened.reason
        assert "no outcome within" in opened.reason
        async with house.working(team.agents):
            await people.resolve(flow_id, Choice.CHOICE_RETRY)
            await people.until_status(flow_id, "COMPLETED")


async def test_p7_a_flow_whose_agent_is_lost_is_compensated_where_the_template_says_so(build: Build) -> None:
    house, team = await build(AT_ONCE, COMPENSATED_FOR_IT), Team()
    async with house.coordinator() as people, house.working(team.all_but("enrichment")):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "COMPENSATED")
        assert "step enrich failed for good after 2 attempts: no outcome within" in flow.status_reason
        assert not flow.expectations


async def test_p7_a_lost_agent_whose_effect_is_unknown_waits_for_an_operator_and_not_for_ever(build: Build) -> None:
    house, team = await build(PAY_AT_ONCE), Team()
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "ESCALATED")
        opened = escalation(flow, "OUTCOME_UNKNOWN")
        assert opened.step == "pay"
        assert set(opened.choices) == {Choice.CHOICE_RETRY, Choice.CHOICE_ACCEPT}
        await people.resolve(flow_id, Choice.CHOICE_ACCEPT)
        flow = await people.until_status(flow_id, "COMPENSATED")
        assert "step pay failed for good" in flow.status_reason


async def test_p7_an_approval_that_expires_is_put_before_an_operator(build: Build) -> None:
    house, team = await build(EXPIRES_SOON, TO_A_PERSON), Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        flow = await people.until_status(flow_id, "WAITING_APPROVAL")
        asked = owed(flow)
        assert asked.by_roles == ["finance"]
        assert "approval of payments.v1.LargeRefundGranted by 2 people" in asked.what
        assert asked.otherwise == "a person is asked"
        assert asked.due_time == flow.approvals[0].expire_time
        assert from_timestamp(asked.due_time) - from_timestamp(flow.approvals[0].request_time) == timedelta(seconds=1)
        flow = await people.until_status(flow_id, "ESCALATED")
        assert "nobody answered" in escalation(flow, "APPROVAL_EXPIRED").reason
        await people.resolve(flow_id, Choice.CHOICE_REJECT)
        await people.until_status(flow_id, "COMPLETED")
    assert team.told == [flow_id]
    assert team.book.calls == []


async def test_p7_an_approval_that_expires_counts_as_refused_where_the_gate_says_so(build: Build) -> None:
    house, team = await build(EXPIRES_SOON), Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        assert owed(await people.until_status(flow_id, "WAITING_APPROVAL")).otherwise == "it counts as refused"
        flow = await people.until_status(flow_id, "COMPLETED")
        assert flow.approvals[0].votes == []
    assert team.told == [flow_id]
    assert team.book.calls == []


def heartbeat(flow_id: str, counter: int) -> tuple[str, bytes]:
    """The n-th heartbeat of step `enrich`, as subject and bytes."""
    message, root = StepProgress(counter=counter), ids.start_id(flow_id)
    event_id = ids.progress_id(flow_id, "enrich", root, 0, 1, counter)
    address = Address("refund", flow_id, Kind.PROGRESS, "enrichment", event_id, message.DESCRIPTOR.full_name)
    event = Event(
        event_id=event_id,
        source="enrichment",
        flow_type="refund",
        flow_id=flow_id,
        template_version=1,
        step="enrich",
        root=root,
        attempt=1,
        data=pack(message),
    )
    return address.subject, event.SerializeToString()


@pytest.mark.parametrize("number", [900, 1300])
async def test_p7_a_flooded_flow_is_held_and_can_still_be_seen_and_ended(house: House, number: int) -> None:
    """1,300 messages are more than one read of the broker gives."""
    team = Team()
    async with house.coordinator() as people:
        flow_id = await house.start(claim())
        enrichment = await house.connect("enrichment")
        await asyncio.gather(*(enrichment.publish(*heartbeat(flow_id, counter)) for counter in range(1, number)))
        flow = await people.until(flow_id, lambda flow: bool(flow.escalations))
        assert name_of(flow.status) == "ESCALATED"
        assert "900" in escalation(flow, "FLOODED").reason
        assert flow.message_count > number
        async with house.working(team.agents):
            await people.resolve(flow_id, Choice.CHOICE_CANCEL)
            flow = await people.until_status(flow_id, "CANCELLED")
            assert not flow.expectations
            assert len(await people.events(flow_id)) == 500, "the first page of them"
            await people.until_status(await house.start(claim("cb-2")), "COMPLETED")


async def test_p7_a_handler_that_kills_its_process_each_time_becomes_a_failure_with_an_unknown_outcome(
    house: House,
) -> None:
    team = Team()
    crashes = house.folder / "crashes"
    crashes.write_text("always pay")
    await house.mesh.set_ack_wait("ledger", timedelta(seconds=3))  # a worker that stalls for longer is one more to die
    environment = {"CRASHES": str(crashes), "PAYMENTS_LEDGER": str(house.folder / "book.sqlite")}
    processes = [house.process("ledger", "tests.promises.crashing:ledger", **environment) for _ in range(6)]
    await until(lambda: house.log("ledger").read_text().count("agent ledger is ready") == 6)
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        await until_owed_by(people, flow_id, "ledger")
        flow = await people.until_status(flow_id, "ESCALATED")
        opened = escalation(flow, "OUTCOME_UNKNOWN")
        assert opened.step == "pay"
        [pay] = [run for run in flow.step_runs if run.step == "pay"]
        assert pay.status == StepRunStatus.STEP_RUN_STATUS_FAILED
        assert pay.last_error.startswith("Poison: its handler was started repeatedly")
        assert [process.poll() for process in processes].count(None) == 1, "four deaths, and one in the second attempt"
        # With the fault gone a person has the ledger look again: it pays under its key, and the payment is undone.
        crashes.write_text("")
        await people.resolve(flow_id, Choice.CHOICE_RETRY)
        flow = await people.until_status(flow_id, "COMPENSATED")
        assert [effect.status for effect in flow.effects] == [EffectStatus.EFFECT_STATUS_UNDONE]
        await house.mesh.until_settled("ledger")
