"""The agent that tells the customer the result."""

from functools import cache

from demos.payments import settings
from demos.payments.money import Amount
from demos.payments.outbox import Outbox
from handrail.agents import Agent, Context, NonRetryable
from handrail.v1.decision_pb2 import ApprovalRefused
from payments.v1.payments_pb2 import CustomerNotified, LargeRefundGranted, Outcome, RefundPaid

agent = Agent("notification")


class MailboxUnavailable(Exception):
    """The customer's mail server accepts no message."""


@cache
def outbox() -> Outbox:
    """The outbox, opened once."""
    return Outbox(settings.outbox_path())


@agent.on(RefundPaid)
def tell_of_refund(event: RefundPaid, ctx: Context) -> CustomerNotified:
    """Tells the customer that the money was refunded."""
    return _send(event, ctx, Outcome.OUTCOME_REFUNDED, f"We refunded you {Amount.of(event.amount)}.")


@agent.on(ApprovalRefused)
def tell_of_refusal(event: ApprovalRefused, ctx: Context) -> CustomerNotified:
    """Tells the customer that the refund was refused; the decision contains the proposed refund."""
    proposed = LargeRefundGranted()
    if not event.proposal.Unpack(proposed):
        raise NonRetryable(f"the refused proposal is {event.proposal.TypeName()}, not a LargeRefundGranted")
    return _send(proposed, ctx, Outcome.OUTCOME_REFUSED, f"We can't refund you {Amount.of(proposed.amount)}.")


def _send(
    event: RefundPaid | LargeRefundGranted, ctx: Context, outcome: Outcome.ValueType, text: str
) -> CustomerNotified:
    if event.chargeback_id in settings.undeliverable():
        raise MailboxUnavailable(f"the mail server of {event.email} accepts no message")
    letter = outbox().send(
        key=ctx.idempotency_key,
        flow_id=ctx.flow_id,
        chargeback_id=event.chargeback_id,
        to=event.email,
        outcome=Outcome.Name(outcome),
        text=text,
    )
    return CustomerNotified(chargeback_id=event.chargeback_id, outcome=outcome, message_id=letter.message_id)


if __name__ == "__main__":
    agent.run()
