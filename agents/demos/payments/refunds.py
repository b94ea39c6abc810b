"""The agent that grants refunds: small ones at once, large ones as a proposal to two people of finance.

The agent does not decide which refund is large: a SmallRefundGranted of 1,000 or more breaks its contract, and the
flow's template has a gate on LargeRefundGranted. It can't split a large refund into small ones, or use another currency
or account: a run of the step answers once, and rules hold the flow if more is granted than was claimed.
"""

from demos.payments.money import Amount
from handrail.agents import Agent, NonRetryable
from payments.v1.payments_pb2 import ChargebackEnriched, LargeRefundGranted, SmallRefundGranted

agent = Agent("refunds")


@agent.on(ChargebackEnriched)
def grant(event: ChargebackEnriched) -> SmallRefundGranted | LargeRefundGranted:
    """Grants the claimed amount."""
    try:
        large = Amount.of(event.amount).is_large
    except ValueError as error:
        raise NonRetryable(f"chargeback {event.chargeback_id}: {error}") from error
    granted = LargeRefundGranted if large else SmallRefundGranted
    return granted(
        chargeback_id=event.chargeback_id, account_id=event.account_id, amount=event.amount, email=event.email
    )


if __name__ == "__main__":
    agent.run()
