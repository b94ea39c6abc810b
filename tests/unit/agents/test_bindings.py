"""Handlers against templates: what does not fit is found before the first event."""

from __future__ import annotations

import pytest

from handrail.agents import Agent, Context, DeclarationError
from handrail.agents.bindings import bind
from handrail.mesh.template import Template
from handrail.v1.failure_pb2 import StepCompleted
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
    RefundReversed,
)
from tests.support.agents import CHAIN, Chain, template

JOIN = (
    "    after: [payments.v1.ChargebackEnriched]\n",
    "    after_all: [{type: payments.v1.ChargebackReceived}, {type: payments.v1.ChargebackEnriched, count: '3'}]\n",
)


def problems(agent: Agent, of: Template | None = None) -> str:
    return "\n".join(bind(agent.name, agent.handlers, of or template()).problems)


def test_agents_that_fit_have_no_problems() -> None:
    assert [problems(agent) for agent in Chain().agents] == ["", "", ""]


def test_a_step_without_a_handler_is_named_with_what_to_add() -> None:
    text = problems(Agent("enrichment"))
    assert "flow type refund, version 1: step enrich belongs to agent enrichment" in text
    assert "add @agent.on(ChargebackReceived)" in text


def test_an_effect_without_an_undo_handler_is_named() -> None:
    agent = Agent("ledger")

    @agent.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid: ...  # type: ignore[empty-body]

    assert "add @agent.undoes(RefundPaid)" in problems(agent)


def test_an_answer_that_the_step_does_not_emit_is_named() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched | LargeRefundGranted: ...  # type: ignore[empty-body]

    text = problems(agent)
    assert "may return payments.v1.LargeRefundGranted; step enrich allows payments.v1.ChargebackEnriched" in text


def test_a_handler_of_which_no_answer_is_the_steps_does_not_run_it() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> LargeRefundGranted: ...  # type: ignore[empty-body]

    bound = bind(agent.name, agent.handlers, template())
    assert bound.problems
    assert bound.handler(bound.template.steps["enrich"], "payments.v1.ChargebackReceived") is None


def test_a_handler_may_always_answer_with_nothing() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched | None: ...

    assert problems(agent) == ""


def test_an_effect_that_may_be_reported_by_nothing_needs_an_undo_for_that() -> None:
    agent = Agent("ledger")

    @agent.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid | None: ...

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed: ...  # type: ignore[empty-body]

    assert "add @agent.undoes(StepCompleted)" in problems(agent)

    @agent.undoes(StepCompleted)
    async def forget(event: StepCompleted) -> None: ...

    assert problems(agent) == ""


def test_an_undo_that_reports_something_else_is_named() -> None:
    chain = Chain()
    agent = Agent("ledger")

    @agent.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid: ...  # type: ignore[empty-body]

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> CustomerNotified: ...  # type: ignore[empty-body]

    assert "may return payments.v1.CustomerNotified" in problems(agent)
    assert problems(chain.ledger) == ""


def test_two_handlers_for_one_step_are_told_apart_by_step_or_flow_type() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def anywhere(event: ChargebackReceived) -> ChargebackEnriched: ...  # type: ignore[empty-body]

    @agent.on(ChargebackReceived, flow_type="refund")
    async def in_refunds(event: ChargebackReceived) -> ChargebackEnriched: ...  # type: ignore[empty-body]

    bound = bind(agent.name, agent.handlers, template())
    assert bound.problems == ()
    step = bound.template.steps["enrich"]
    chosen = bound.handler(step, "payments.v1.ChargebackReceived")
    assert chosen is not None
    assert chosen.function is in_refunds


def test_two_handlers_that_can_not_be_told_apart_are_named() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def one(event: ChargebackReceived) -> ChargebackEnriched: ...  # type: ignore[empty-body]

    @agent.on(ChargebackReceived)
    async def other(event: ChargebackReceived) -> ChargebackEnriched: ...  # type: ignore[empty-body]

    assert "are all declared for it" in problems(agent)


def test_a_join_has_a_handler_for_all_its_inputs_together() -> None:
    agent = Agent("ledger")

    @agent.on_all(ChargebackReceived, ChargebackEnriched)
    async def pay(first: ChargebackReceived, rest: list[ChargebackEnriched], ctx: Context) -> RefundPaid: ...  # type: ignore[empty-body]

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed: ...  # type: ignore[empty-body]

    assert problems(agent, template(CHAIN, JOIN)) == ""


def test_a_join_that_counts_several_needs_a_list() -> None:
    agent = Agent("ledger")

    @agent.on_all(ChargebackReceived, ChargebackEnriched)
    async def pay(first: ChargebackReceived, second: ChargebackEnriched) -> RefundPaid: ...  # type: ignore[empty-body]

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed: ...  # type: ignore[empty-body]

    assert "annotate list[ChargebackEnriched]" in problems(agent, template(CHAIN, JOIN))


def test_a_join_without_a_handler_is_named() -> None:
    agent = Agent("ledger")

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed: ...  # type: ignore[empty-body]

    assert "add @agent.on_all(ChargebackEnriched, ChargebackReceived)" in problems(agent, template(CHAIN, JOIN))


@pytest.mark.parametrize("name", ["", "Ledger", "a.b", "a b", "coordinator", "admin", "viewer", "x" * 64])
def test_a_name_that_no_agent_may_have_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="is not a valid agent name"):
        Agent(name)
