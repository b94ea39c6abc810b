"""The payments demo: five agents turn chargebacks into refunds. They know only their events.

detection reads chargebacks, enrichment looks the customer up, refunds grants, ledger pays, notification tells the
customer. `python -m demos.payments` runs them all; `handrail dev --agents demos.payments` keeps them running.
"""

from pathlib import Path

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from payments.v1 import payments_pb2

AGENTS: dict[str, str] = {
    name: f"demos.payments.{name}:agent" for name in ("detection", "enrichment", "refunds", "ledger", "notification")
}
"""The import path of each agent by name, as `handrail agent run` takes it."""

TEMPLATES: tuple[Path, ...] = (Path(__file__).with_name("refund.yaml"),)
"""The flow types that the agents take part in."""

MESSAGES: tuple[type[Message], ...] = (
    payments_pb2.ChargebackReceived,
    payments_pb2.ChargebackEnriched,
    payments_pb2.SmallRefundGranted,
    payments_pb2.LargeRefundGranted,
    payments_pb2.RefundPaid,
    payments_pb2.RefundReversed,
    payments_pb2.CustomerNotified,
)
"""The messages that the templates name."""

EXAMPLES: dict[str, Message] = {
    "refund": payments_pb2.ChargebackReceived(
        chargeback_id="cb-example",
        account_id="acct-0001",
        amount=Money(currency_code="EUR", units=1500),
        reason="to see two people approve it",
    )
}
"""An example of a first event, by flow type: `handrail dev` prints the command that sends it."""
