"""The flow type of these tests, and its agents: a refund that people approve where it is large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from google.type.money_pb2 import Money

from handrail.agents import Agent, Context
from handrail.v1.decision_pb2 import ApprovalRefused
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    Outcome,
    RefundPaid,
    RefundReversed,
    Risk,
    SmallRefundGranted,
)
from tests.support.agents import Book

SMALL, LARGE = 250, 5000

REFUND = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection, intake]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - name: enrich
    agent: enrichment
    after: [payments.v1.ChargebackReceived]
    emits: [payments.v1.ChargebackEnriched]
    effect: NONE
    timeout: 600s
    retry: {max_attempts: 2, initial_backoff: 0.2s}
    on_failure: ESCALATE
  - name: grant
    agent: refunds
    after: [payments.v1.ChargebackEnriched]
    emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted]
    effect: NONE
    timeout: 600s
  - name: pay
    agent: ledger
    after: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted]
    emits: [payments.v1.RefundPaid]
    effect: UNDOABLE
    timeout: 601s
    retry: {max_attempts: 2, initial_backoff: 0.2s}
    on_failure: COMPENSATE
    undo: {timeout: 600s, retry: {max_attempts: 2, initial_backoff: 0.2s}, emits: [payments.v1.RefundReversed]}
  - name: notify
    agent: notification
    after: [payments.v1.RefundPaid, handrail.v1.ApprovalRefused]
    emits: [payments.v1.CustomerNotified]
    effect: IRREVERSIBLE
    timeout: 600s
    on_failure: COMPENSATE
gates:
  - name: large_refund
    on: payments.v1.LargeRefundGranted
    when: event.amount.units >= 1000
    approvers: {roles: [finance], quorum: 2, not_the_requester: true}
    expires_after: 14400s
    on_expiry: REJECT
    on_reject: CONTINUE
"""
"""The time-outs are long: a test that waits for one shortens it."""

Answer = Callable[[object, Context], Awaitable[object]]


def money(units: int) -> Money:
    """Whole euros."""
    return Money(currency_code="EUR", units=units)


def claim(chargeback_id: str = "cb-1", *, units: int = SMALL) -> ChargebackReceived:
    """What begins a flow."""
    return ChargebackReceived(chargeback_id=chargeback_id, account_id="acc-1", amount=money(units))


def granted(event: ChargebackEnriched) -> SmallRefundGranted | LargeRefundGranted:
    """What step `grant` answers."""
    made = LargeRefundGranted if event.amount.units >= 1000 else SmallRefundGranted
    return made(chargeback_id=event.chargeback_id, account_id=event.account_id, amount=event.amount, email=event.email)


class Team:
    """All agents of the refund, behaving well. A test replaces the method of the step that has to fail."""

    def __init__(self) -> None:
        self.book = Book()
        self.told: list[str] = []
        self.detection = Agent("detection")
        self.intake = Agent("intake")
        self.enrichment = Agent("enrichment")
        self.refunds = Agent("refunds")
        self.ledger = Agent("ledger")
        self.notification = Agent("notification")
        self._declare()

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All of them."""
        return (self.detection, self.intake, self.enrichment, self.refunds, self.ledger, self.notification)

    def all_but(self, *names: str) -> tuple[Agent, ...]:
        """The agents that are not named."""
        return tuple(agent for agent in self.agents if agent.name not in names)

    async def enrich(self, event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        """Step `enrich`."""
        return ChargebackEnriched(
            chargeback_id=event.chargeback_id,
            account_id=event.account_id,
            amount=event.amount,
            risk=Risk.RISK_LOW,
            email="kim@example.com",
        )

    async def grant(self, event: ChargebackEnriched, ctx: Context) -> SmallRefundGranted | LargeRefundGranted:
        """Step `grant`."""
        return granted(event)

    async def pay(self, event: SmallRefundGranted | LargeRefundGranted, ctx: Context) -> RefundPaid:
        """Step `pay`."""
        self.book.move(ctx.idempotency_key, event.amount.units)
        return RefundPaid(
            chargeback_id=event.chargeback_id,
            account_id=event.account_id,
            amount=event.amount,
            transfer_id=f"t-{ctx.idempotency_key}",
            email=event.email,
        )

    async def take_back(self, event: RefundPaid, ctx: Context) -> RefundReversed:
        """The undo of step `pay`."""
        self.book.move(ctx.idempotency_key, -event.amount.units)
        return RefundReversed(
            chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=ctx.idempotency_key
        )

    async def notify(self, event: RefundPaid | ApprovalRefused, ctx: Context) -> CustomerNotified:
        """Step `notify`."""
        self.told.append(ctx.flow_id)
        paid = isinstance(event, RefundPaid)
        outcome = Outcome.OUTCOME_REFUNDED if paid else Outcome.OUTCOME_REFUSED
        chargeback_id = event.chargeback_id if isinstance(event, RefundPaid) else "refused"
        return CustomerNotified(chargeback_id=chargeback_id, outcome=outcome, message_id="m-1")

    def _declare(self) -> None:
        @self.enrichment.on(ChargebackReceived)
        async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
            return await self.enrich(event, ctx)

        @self.refunds.on(ChargebackEnriched)
        async def grant(event: ChargebackEnriched, ctx: Context) -> SmallRefundGranted | LargeRefundGranted:
            return await self.grant(event, ctx)

        @self.ledger.on(SmallRefundGranted, LargeRefundGranted)
        async def pay(event: SmallRefundGranted | LargeRefundGranted, ctx: Context) -> RefundPaid:
            return await self.pay(event, ctx)

        @self.ledger.undoes(RefundPaid)
        async def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
            return await self.take_back(event, ctx)

        @self.notification.on(RefundPaid, ApprovalRefused)
        async def notify(event: RefundPaid | ApprovalRefused, ctx: Context) -> CustomerNotified:
            return await self.notify(event, ctx)
