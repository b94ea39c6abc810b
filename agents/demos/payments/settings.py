"""The agents' settings, from environment variables; each is read when it is first needed."""

import json
import os
from pathlib import Path

CHARGEBACKS = "PAYMENTS_CHARGEBACKS"
PER_SECOND = "PAYMENTS_PER_SECOND"
CUSTOMERS = "PAYMENTS_CUSTOMERS"
LEDGER = "PAYMENTS_LEDGER"
OUTBOX = "PAYMENTS_OUTBOX"
UNDELIVERABLE = "PAYMENTS_UNDELIVERABLE"

_SHIPPED = Path(__file__).parent


def chargebacks_path() -> Path | None:
    """PAYMENTS_CHARGEBACKS: the file that detection reads; if it is not set, None: nothing is read."""
    value = os.environ.get(CHARGEBACKS)
    return Path(value) if value else None


def chargebacks_per_second() -> float:
    """PAYMENTS_PER_SECOND: the largest number of flows that detection starts in a second; 50 if it is not set."""
    return float(os.environ.get(PER_SECOND) or 50)


def customers_path() -> Path:
    """PAYMENTS_CUSTOMERS: the file of customers; the shipped one if it is not set."""
    return Path(os.environ.get(CUSTOMERS) or _SHIPPED / "customers.jsonl")


def ledger_path() -> Path:
    """PAYMENTS_LEDGER: the SQLite file of the ledger; `ledger.sqlite` in the working directory if it is not set."""
    return Path(os.environ.get(LEDGER) or "ledger.sqlite")


def outbox_path() -> Path:
    """PAYMENTS_OUTBOX: the file of messages to customers; `outbox.jsonl` in the working directory if it is not set."""
    return Path(os.environ.get(OUTBOX) or "outbox.jsonl")


def undeliverable() -> frozenset[str]:
    """PAYMENTS_UNDELIVERABLE: a JSON list of chargebacks with customers who can't be reached; an injected fault."""
    return frozenset(json.loads(os.environ.get(UNDELIVERABLE) or "[]"))
