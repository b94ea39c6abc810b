"""A handler that can't say whether its effect happened: no money is gone without a word."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, NonRetryable, OutcomeUnknown
from handrail.testing import FlowView, World
from handrail.v1.decision_pb2 import Choice, EscalationCause
from handrail.v1.failure_pb2 import StepFailed
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, RefundPaid, RefundReversed
from tests.support.agents import CHAIN, Book, Chain, begun, paid, template

COMPENSATE = template(
    CHAIN,
    (
        "retry: {max_attempts: 3, initial_backoff: 1s}\n    undo:",
        "retry: {max_attempts: 1}\n    on_failure: COMPENSATE\n    undo:",
    ),
)


class Bank:
    """Books, and then does not always say so: what `says` is raised, call by call, `None` being an answer."""

    def __init__(self, *says: BaseException | None, books_from: int = 1) -> None:
        self.book = Book()
        self.keys: list[str] = []
        self.agent = Agent("ledger")
        self._says = list(says)
        self._books_from = books_from

        @self.agent.on(ChargebackEnriched)
        async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
            self.keys.append(ctx.idempotency_key)
            if len(self.keys) >= self._books_from:
                self.book.move(ctx.idempotency_key, 250)
            says = self._says.pop(0) if self._says else None
            if says is not None:
                raise says
            return paid(f"t-{ctx.idempotency_key}", event.chargeback_id)

        @self.agent.undoes(RefundPaid)
        async def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
            self.book.move(ctx.idempotency_key, -250)
            return RefundReversed(
                chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=ctx.idempotency_key
            )


def failures(flow: FlowView) -> Sequence[tuple[str, bool]]:
    """What was reported, and whether the effect may have happened."""
    return [(each.error_class, each.outcome_unknown) for each in flow.recorded(StepFailed)]


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), TimeoutError(), ConnectionResetError()])
async def test_what_may_have_happened_is_asked_again_at_once_under_the_same_key(error: Exception) -> None:
    chain, bank = Chain(), Bank(error, error)
    async with World(templates=[COMPENSATE], agents=[chain.enrichment, bank.agent, chain.notification]) as world:
        flow = await begun(world)
        assert flow.status == "COMPLETED"
        assert failures(flow) == []
    assert len(bank.keys) == 3
    assert len(set(bank.keys)) == 1
    assert bank.book.balance == 250


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), TimeoutError("read timed out")])
async def test_p7_money_that_may_be_gone_waits_for_a_person_before_the_flow_is_compensated(error: Exception) -> None:
    chain, bank = Chain(), Bank(*[error] * 3)
    async with World(templates=[COMPENSATE], agents=[chain.enrichment, bank.agent, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=10))
        assert failures(flow) == [(type(error).__name__, True)]
        assert flow.status == "ESCALATED"
        [escalation] = flow.flow.escalations.values()
        assert escalation.cause == EscalationCause.ESCALATION_CAUSE_OUTCOME_UNKNOWN
        assert bank.book.balance == 250, "so it was"
        await world.resolve(flow, Choice.CHOICE_RETRY)
        await world.advance(timedelta(minutes=10))
        assert flow.status == "COMPENSATED"
    assert bank.book.balance == 0


@pytest.mark.parametrize("last", [ConnectionRefusedError(), NonRetryable("declined"), ValueError("a bug")])
async def test_what_one_call_left_unknown_stays_unknown_whatever_the_next_one_raises(last: Exception) -> None:
    chain, bank = Chain(), Bank(TimeoutError(), last, ConnectionRefusedError())
    async with World(templates=[COMPENSATE], agents=[chain.enrichment, bank.agent, chain.notification]) as world:
        flow = await begun(world)
        assert [unknown for _, unknown in failures(flow)] == [True]


@pytest.mark.parametrize("error", [ConnectionRefusedError(), NonRetryable("declined"), ValueError("a bug")])
async def test_what_did_not_happen_is_compensated_without_a_question(error: Exception) -> None:
    chain, bank = Chain(), Bank(*[error] * 3, books_from=100)
    async with World(templates=[COMPENSATE], agents=[chain.enrichment, bank.agent, chain.notification]) as world:
        flow = await begun(world)
        assert failures(flow) == [(type(error).__name__, False)]
        assert flow.status == "COMPENSATED"


async def test_a_step_without_an_effect_has_no_unknown_outcome() -> None:
    chain, asked = Chain(), Agent("enrichment")

    @asked.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        raise OutcomeUnknown("no answer")

    async with World(templates=[template()], agents=[asked, chain.ledger, chain.notification]) as world:
        flow = await begun(world)
        assert failures(flow) == [("OutcomeUnknown", False)]
