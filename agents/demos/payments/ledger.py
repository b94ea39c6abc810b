"""The agent that moves the money, and takes it back if a refund is undone."""

from functools import cache

from demos.payments import settings
from demos.payments.book import Book, BookError
from demos.payments.money import Amount
from handrail.agents import Agent, Context, NonRetryable
from payments.v1.payments_pb2 import LargeRefundGranted, RefundPaid, RefundReversed, SmallRefundGranted

agent = Agent("ledger")


@cache
def book() -> Book:
    """The book, opened once."""
    return Book(settings.ledger_path())


@agent.on(SmallRefundGranted, LargeRefundGranted, validate_inbound=True)
def pay(event: SmallRefundGranted | LargeRefundGranted, ctx: Context) -> RefundPaid:
    """Moves the amount to the customer, once per idempotency key.

    A crash between the book's commit and the publish is harmless: the next attempt has the same key, finds the transfer
    and reports it.
    """
    try:
        transfer = book().pay(
            key=ctx.idempotency_key,
            chargeback_id=event.chargeback_id,
            account_id=event.account_id,
            amount=Amount.of(event.amount),
        )
    except (BookError, ValueError) as error:
        raise NonRetryable(f"chargeback {event.chargeback_id}: {error}") from error
    return RefundPaid(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        transfer_id=transfer.transfer_id,
        email=event.email,
    )


@agent.undoes(RefundPaid)
def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
    """Reverses the transfer, once. A transfer that is not in the book needs a person."""
    try:
        reversal = book().reverse(key=ctx.idempotency_key, transfer_id=event.transfer_id)
    except BookError as error:
        raise NonRetryable(f"chargeback {event.chargeback_id}: {error}") from error
    return RefundReversed(
        chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=reversal.transfer_id
    )


if __name__ == "__main__":
    agent.run()
