"""The agents: each answers with about 200 bytes and has no effects."""

from google.type.money_pb2 import Money

from handrail.agents import Agent, Context, NonRetryable
from payments.v1.payments_pb2 import (
    OUTCOME_REFUNDED,
    RISK_LOW,
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
)

detect, enrich, notify, propose = Agent("detect"), Agent("enrich"), Agent("notify"), Agent("propose")

_EMAIL = f"{'x' * 60}@{'y' * 60}.example.org"


@detect.on(ChargebackReceived)
async def detected(event: ChargebackReceived) -> ChargebackEnriched:
    """The first step."""
    return ChargebackEnriched(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        risk=RISK_LOW,
        email=_EMAIL,
    )


@propose.on(ChargebackReceived)
async def proposed(event: ChargebackReceived) -> LargeRefundGranted:
    """The only step of the approved flow."""
    return LargeRefundGranted(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=Money(currency_code="EUR", units=1000),
        email=_EMAIL,
    )


@detect.undoes(ChargebackEnriched)
async def undetected(event: ChargebackEnriched) -> None:
    """The undo of the first step."""


@enrich.on(ChargebackEnriched)
async def enriched(event: ChargebackEnriched) -> RefundPaid:
    """The second step."""
    return RefundPaid(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        transfer_id="t" * 32,
        email=_EMAIL,
    )


@enrich.undoes(RefundPaid)
async def unenriched(event: RefundPaid) -> None:
    """The undo of the second step."""


@notify.on(RefundPaid)
async def notified(event: RefundPaid, ctx: Context) -> CustomerNotified:
    """The third step; it fails in the compensated flow."""
    if ctx.flow_type == "compensated":
        raise NonRetryable("as planned")
    return CustomerNotified(chargeback_id=event.chargeback_id, outcome=OUTCOME_REFUNDED, message_id="m" * 120)
