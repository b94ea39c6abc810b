"""The agents of the counted join: each answers at once and has no effects."""

from handrail.agents import Agent, Context
from payments.v1.payments_pb2 import (
    OUTCOME_REFUNDED,
    ChargebackReceived,
    CustomerNotified,
    RefundPaid,
    SmallRefundGranted,
)

split, pay, tell = Agent("split"), Agent("pay"), Agent("tell")

_EMAIL = "kim@example.org"


@split.on(ChargebackReceived)
async def parts(event: ChargebackReceived) -> list[SmallRefundGranted]:
    """As many parts as the amount says."""
    part = SmallRefundGranted(
        chargeback_id=event.chargeback_id, account_id=event.account_id, amount=event.amount, email=_EMAIL
    )
    return [part] * event.amount.units


@pay.on(SmallRefundGranted)
async def paid(event: SmallRefundGranted, ctx: Context) -> RefundPaid:
    """The outcome of one part."""
    return RefundPaid(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        transfer_id=ctx.idempotency_key,
        email=_EMAIL,
    )


@tell.on_all(ChargebackReceived, RefundPaid)
async def told(first: ChargebackReceived, parts: list[RefundPaid]) -> CustomerNotified:
    """The end, once all parts are there."""
    return CustomerNotified(chargeback_id=first.chargeback_id, outcome=OUTCOME_REFUNDED, message_id=str(len(parts)))
