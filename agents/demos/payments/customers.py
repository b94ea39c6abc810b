"""The customers: a JSON-lines file with one customer a line."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from payments.v1.payments_pb2 import Risk

SHIPPED = Path(__file__).with_name("customers.jsonl")

HIGH_RISK_FROM = 5
"""The number of earlier chargebacks from which on the risk is high."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer, and the number of earlier chargebacks."""

    account_id: str
    email: str
    earlier_chargebacks: int

    @property
    def risk(self) -> Risk.ValueType:
        """The risk, by the number of earlier chargebacks."""
        if self.earlier_chargebacks >= HIGH_RISK_FROM:
            return Risk.RISK_HIGH
        return Risk.RISK_MEDIUM if self.earlier_chargebacks else Risk.RISK_LOW


class Customers:
    """The customers of a file, by account."""

    def __init__(self, known: Mapping[str, Customer]) -> None:
        self._known = known

    @classmethod
    def load(cls, path: Path) -> "Customers":
        """Reads the file.

        Raises:
            OSError: if the file can't be read.
            ValueError: if a line is not a customer; names the line.
        """
        known = {}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                customer = Customer(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            known[customer.account_id] = customer
        return cls(known)

    def find(self, account_id: str) -> Customer:
        """The customer of an account.

        A customer who is not in the file is new: without earlier chargebacks, and with the mailbox that every account
        has at the bank. The mailbox is named by the account's hash, because an account may contain any character.
        """
        mailbox = hashlib.sha256(account_id.encode()).hexdigest()[:16]
        return self._known.get(account_id) or Customer(account_id, f"account-{mailbox}@mail.example", 0)
