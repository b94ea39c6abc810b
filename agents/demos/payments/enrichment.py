"""The agent that adds the customer's data."""

from functools import cache

from demos.payments import settings
from demos.payments.customers import Customers
from handrail.agents import Agent
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived

agent = Agent("enrichment")


@cache
def customers() -> Customers:
    """The customers, read once."""
    return Customers.load(settings.customers_path())


@agent.on(ChargebackReceived)
def enrich(event: ChargebackReceived) -> ChargebackEnriched:
    """Looks the customer up."""
    customer = customers().find(event.account_id)
    return ChargebackEnriched(
        chargeback_id=event.chargeback_id,
        account_id=event.account_id,
        amount=event.amount,
        risk=customer.risk,
        email=customer.email,
    )


if __name__ == "__main__":
    agent.run()
