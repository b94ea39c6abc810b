"""External steps: no worker runs them, nobody misses one, and their time runs from when they are asked for."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest
from google.protobuf.message import Message

from handrail.agents import Agent
from handrail.agents.bindings import bind
from handrail.analysis.check import typecheck
from handrail.analysis.diff.template_diff import diff
from handrail.coordinator.api.views.expectations import expectations
from handrail.coordinator.decide import decide
from handrail.mesh.contracts import Contracts, descriptor_set_for
from handrail.mesh.flow.queue import Queue
from handrail.mesh.permissions.agents import agent_users
from handrail.mesh.streams.durables import agent_filters
from handrail.mesh.streams.quarantine_streams import agents_named
from handrail.mesh.template import Template, load_yaml
from handrail.testing import World
from handrail.v1.decision_pb2 import StepQueued, StepTimedOut
from payments.v1.payments_pb2 import RISK_LOW, ChargebackEnriched, ChargebackReceived, SmallRefundGranted

CONTRACTS = Contracts.from_descriptor_set(descriptor_set_for([ChargebackReceived]))

TEXT = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
completes_with: [payments.v1.SmallRefundGranted]
deadline: 30d
steps:
  - name: ask_bank
    agent: bank
    after: [payments.v1.ChargebackReceived]
    emits: [payments.v1.ChargebackEnriched]
    effect: NONE
    external: true
    timeout: 3d
    on_failure: FAIL
  - name: grant
    agent: refunds
    after: [payments.v1.ChargebackEnriched]
    emits: [payments.v1.SmallRefundGranted]
    effect: NONE
    timeout: 30s
"""
refunds = Agent("refunds")


@refunds.on(ChargebackEnriched)
async def grant(event: ChargebackEnriched) -> SmallRefundGranted:
    granted = SmallRefundGranted(chargeback_id=event.chargeback_id, account_id=event.account_id, email=event.email)
    granted.amount.CopyFrom(event.amount)
    return granted


def template(*changes: tuple[str, str]) -> Template:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return Template.compile(load_yaml(text), CONTRACTS)


BY_A_WORKER = ("    external: true\n", "")
BY_THE_SAME_AGENT = ("agent: bank", "agent: refunds")


def received() -> ChargebackReceived:
    event = ChargebackReceived(chargeback_id="c1", account_id="a1")
    event.amount.currency_code, event.amount.units = "EUR", 5
    return event


def enriched() -> ChargebackEnriched:
    event = ChargebackEnriched(chargeback_id="c1", account_id="a1", risk=RISK_LOW, email="kim@example.com")
    event.amount.currency_code, event.amount.units = "EUR", 5
    return event


async def test_an_answer_from_outside_moves_the_flow_on() -> None:
    async with World(templates=[template()], agents=[refunds]) as world:
        flow = await world.start("refund", received())
        [owed] = expectations(flow.flow)
        assert owed.by_agent == "bank"
        assert owed.due_time.ToDatetime(UTC) - world.now == timedelta(days=3)
        assert owed.what == "the outcome of step ask_bank: payments.v1.ChargebackEnriched, through the API"
        await world.advance(timedelta(days=2, hours=23))
        await world.answer(flow, "ask_bank", enriched())
        assert flow.status == "COMPLETED"
        with pytest.raises(ValueError, match="0 pending runs"):
            await world.answer(flow, "ask_bank", enriched())


@pytest.mark.parametrize(
    "text, decision",
    [(template(), StepTimedOut), (template(("    external: true\n", "    start_within: 20d\n")), StepQueued)],
    ids=["external", "of a worker"],
)
async def test_the_time_of_an_external_step_runs_although_no_worker_has_begun_it(
    text: Template, decision: type[Message]
) -> None:
    async with World(templates=[text], agents=[refunds]) as world:
        flow = await world.start("refund", received())
        nobody_got_it = {"bank": Queue(handed_out=0)}
        entry = decide(flow.flow, world.now + timedelta(days=3), queues=nobody_got_it)
        assert entry is not None
        assert entry.address.message_type == decision.DESCRIPTOR.full_name


async def test_an_external_step_without_an_answer_fails_in_time() -> None:
    async with World(templates=[template()], agents=[refunds]) as world:
        flow = await world.start("refund", received())
        await world.advance(timedelta(days=3))
        assert flow.status == "FAILED"


def test_an_agent_that_only_the_api_speaks_for_needs_nothing_on_the_broker() -> None:
    versions = [template()]
    assert agent_filters(versions).keys() == {"refunds"}
    assert agents_named(versions) == {"refunds"}
    assert agent_users([version.proto for version in versions]).keys() == {"refunds"}


def test_an_agent_with_workers_for_other_steps_keeps_what_these_need() -> None:
    both, worker = template(BY_THE_SAME_AGENT), template(BY_THE_SAME_AGENT, BY_A_WORKER)
    asked = "flow.refund.*.event.*.*.payments.v1.ChargebackReceived"
    assert asked not in agent_filters([both])["refunds"]
    assert asked in agent_filters([both, worker])["refunds"], "older flows still have a worker for it"
    answered = "flow.refund.f.event.refunds.e.payments.v1.ChargebackEnriched"
    assert not agent_users([both.proto])["refunds"].may_publish(answered)
    assert agent_users([both.proto, worker.proto])["refunds"].may_publish(answered)


def test_a_worker_needs_no_handler_for_an_external_step() -> None:
    assert bind("refunds", refunds.handlers, template(BY_THE_SAME_AGENT)).problems == ()
    [problem] = bind("refunds", refunds.handlers, template(BY_THE_SAME_AGENT, BY_A_WORKER)).problems
    assert "no handler" in problem


def test_a_step_that_becomes_external_is_a_change() -> None:
    [change] = diff(template(BY_A_WORKER), template())
    assert change.path == "steps.ask_bank.external"
    assert change.text == "Step ask_bank is answered through the API, by no worker; before, by a worker of its agent."


@pytest.mark.parametrize(
    "path, change",
    [
        ("steps[0].start_within", ("external: true", "external: true\n    start_within: 1h")),
        (
            "steps[0].undo",
            ("effect: NONE\n    external: true", "effect: UNDOABLE\n    external: true\n    undo: {timeout: 5s}"),
        ),
    ],
)
def test_what_only_a_worker_does_is_refused_in_an_external_step(path: str, change: tuple[str, str]) -> None:
    found = [each for each in typecheck.check(template(change).proto, CONTRACTS) if each.code == "HR039"]
    assert [each.path for each in found] == [path]
