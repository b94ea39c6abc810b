"""Agents and templates for tests of the SDK, with the demo's contracts."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.agents import Agent, Context
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template, load_yaml
from handrail.testing import FlowView, World
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

MESSAGES: Sequence[type[Message]] = (
    ChargebackReceived,
    ChargebackEnriched,
    SmallRefundGranted,
    LargeRefundGranted,
    RefundPaid,
    RefundReversed,
    CustomerNotified,
)

AMOUNT = Money(currency_code="EUR", units=250)

CHAIN = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - name: enrich
    agent: enrichment
    after: [payments.v1.ChargebackReceived]
    emits: [payments.v1.ChargebackEnriched]
    effect: NONE
    timeout: 30s
    retry: {max_attempts: 3, initial_backoff: 1s}
  - name: pay
    agent: ledger
    after: [payments.v1.ChargebackEnriched]
    emits: [payments.v1.RefundPaid]
    effect: UNDOABLE
    timeout: 30s
    retry: {max_attempts: 3, initial_backoff: 1s}
    undo: {timeout: 30s, retry: {max_attempts: 2, initial_backoff: 1s}, emits: [payments.v1.RefundReversed]}
  - name: notify
    agent: notification
    after: [payments.v1.RefundPaid]
    emits: [payments.v1.CustomerNotified]
    effect: IRREVERSIBLE
    timeout: 60s
    on_failure: COMPENSATE
"""
"""Three steps in a row, by three agents."""


def template(text: str = CHAIN, *changes: tuple[str, str]) -> Template:
    """A template, with pieces of its text replaced."""
    for old, new in changes:
        assert old in text, f'the template has no "{old}"'
        text = text.replace(old, new)
    return Template.compile(load_yaml(text), Contracts.from_messages(MESSAGES))


def received(chargeback_id: str = "cb-1") -> ChargebackReceived:
    """The first event of a flow."""
    return ChargebackReceived(chargeback_id=chargeback_id, account_id="acc-1", amount=AMOUNT)


def enriched(chargeback_id: str = "cb-1") -> ChargebackEnriched:
    """The answer of the first step."""
    return ChargebackEnriched(
        chargeback_id=chargeback_id,
        account_id="acc-1",
        amount=AMOUNT,
        risk=Risk.RISK_LOW,
        email="kim@example.com",
    )


def paid(transfer_id: str = "t-1", chargeback_id: str = "cb-1") -> RefundPaid:
    """The answer of the second step."""
    return RefundPaid(
        chargeback_id=chargeback_id,
        account_id="acc-1",
        amount=AMOUNT,
        transfer_id=transfer_id,
        email="kim@example.com",
    )


def notified(chargeback_id: str = "cb-1") -> CustomerNotified:
    """The answer of the third step."""
    return CustomerNotified(chargeback_id=chargeback_id, outcome=Outcome.OUTCOME_REFUNDED, message_id="m-1")


class Book:
    """A ledger that moves money once per key and counts how often each key was used."""

    def __init__(self) -> None:
        self.balance = 0
        self.calls: list[str] = []
        self._moved: set[str] = set()

    def move(self, key: str, amount: int) -> None:
        """Moves an amount unless the key was used before."""
        self.calls.append(key)
        if key not in self._moved:
            self._moved.add(key)
            self.balance += amount


class Chain:
    """The three agents of CHAIN, their ledger and their outbox; all behave well."""

    def __init__(self) -> None:
        self.book = Book()
        self.outbox: list[str] = []
        self.enrichment = Agent("enrichment")
        self.ledger = Agent("ledger")
        self.notification = Agent("notification")

        @self.enrichment.on(ChargebackReceived)
        async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
            return enriched(event.chargeback_id)

        @self.ledger.on(ChargebackEnriched)
        async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
            self.book.move(ctx.idempotency_key, 250)
            return paid(f"t-{ctx.idempotency_key}", event.chargeback_id)

        @self.ledger.undoes(RefundPaid)
        async def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
            self.book.move(ctx.idempotency_key, -250)
            return RefundReversed(
                chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=ctx.idempotency_key
            )

        @self.notification.on(RefundPaid)
        async def notify(event: RefundPaid, ctx: Context) -> CustomerNotified:
            self.outbox.append(ctx.flow_id)
            return notified(event.chargeback_id)

    @property
    def agents(self) -> tuple[Agent, Agent, Agent]:
        """All three agents."""
        return (self.enrichment, self.ledger, self.notification)


async def begun(world: World) -> FlowView:
    """Starts a refund as the agent detection."""
    return await world.start("refund", received(), by="detection")
