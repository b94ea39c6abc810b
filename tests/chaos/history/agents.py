"""The agents of the load, for their own worker processes. They record their effects outside the stream in a ledger: the
SQLite file `CHAOS_BOOK`.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.type.money_pb2 import Money

from demos.stage.transactions import transaction
from handrail.agents import Agent, Context, NonRetryable
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
from tests.chaos.history.story import SMALL, Lot, lot_of

desk = Agent("desk")
ledger = Agent("ledger")

_ATTEMPTS_OF_A_ROUND = 3


def write(ctx: Context, what: str, units: int) -> None:
    """Moves money unless this work was done before: key and effect in one transaction."""
    with transaction(Path(os.environ["CHAOS_BOOK"])) as book:
        book.execute(
            "INSERT OR IGNORE INTO moves (key, flow_id, what, units) VALUES (?, ?, ?, ?)",
            (ctx.idempotency_key, ctx.flow_id, what, units),
        )


def no_more_than(tries: int, ctx: Context) -> None:
    """Fails this many times. Every attempt counts, including those of dead workers."""
    if ctx.attempt <= tries:
        raise RuntimeError(f"attempt {ctx.attempt} is to fail")


@desk.on(ChargebackReceived)
async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
    """Looks up the customer."""
    lot = lot_of(event.chargeback_id)
    if lot is Lot.BROKEN:
        no_more_than(_ATTEMPTS_OF_A_ROUND, ctx)
    return ChargebackEnriched(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        risk=Risk.RISK_HIGH if lot is Lot.RISKY else Risk.RISK_LOW,
        email="kim@example.com",
    )


@desk.on(ChargebackEnriched)
async def grant(event: ChargebackEnriched) -> SmallRefundGranted | LargeRefundGranted:
    """Grants small refunds and proposes large ones."""
    kind = SmallRefundGranted if event.amount.units <= SMALL else LargeRefundGranted
    return kind(chargeback_id=event.chargeback_id, account_id=event.account_id, amount=event.amount, email=event.email)


@ledger.on(SmallRefundGranted, LargeRefundGranted)
def pay(event: SmallRefundGranted | LargeRefundGranted, ctx: Context) -> RefundPaid:
    """Moves the money."""
    if lot_of(event.chargeback_id) is Lot.FLAKY:
        no_more_than(2, ctx)
    write(ctx, "pay", event.amount.units)
    return RefundPaid(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        transfer_id=f"t-{ctx.idempotency_key}",
        email=event.email,
    )


@ledger.undoes(RefundPaid)
def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
    """Moves the money back."""
    if lot_of(event.chargeback_id) is Lot.STUBBORN:
        no_more_than(_ATTEMPTS_OF_A_ROUND, ctx)
    write(ctx, "back", -event.amount.units)
    return RefundReversed(
        chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=ctx.idempotency_key
    )


@desk.on(RefundPaid)
async def notify(event: RefundPaid, ctx: Context) -> CustomerNotified:
    """Tells the customer about the refund."""
    if lot_of(event.chargeback_id) in (Lot.HOPELESS, Lot.STUBBORN):
        raise NonRetryable("nobody can be told")
    return _told(event.chargeback_id, Outcome.OUTCOME_REFUNDED, ctx)


@desk.on(ApprovalRefused)
async def refuse(event: ApprovalRefused, ctx: Context) -> CustomerNotified:
    """Tells the customer that the refund was refused."""
    refused = LargeRefundGranted()
    event.proposal.Unpack(refused)
    return _told(refused.chargeback_id, Outcome.OUTCOME_REFUSED, ctx)


def _told(chargeback_id: str, outcome: Outcome.ValueType, ctx: Context) -> CustomerNotified:
    write(ctx, "tell", 0)
    return CustomerNotified(chargeback_id=chargeback_id, outcome=outcome, message_id=f"m-{ctx.idempotency_key}")


def chargeback(chargeback_id: str, units: int) -> ChargebackReceived:
    """The first event of a flow."""
    amount = Money(currency_code="EUR", units=units)
    return ChargebackReceived(chargeback_id=chargeback_id, account_id="acc-1", amount=amount)
