"""Exact amounts of money: google.type.Money as integers, never as floats."""

from dataclasses import dataclass

from google.type.money_pb2 import Money

NANOS_PER_UNIT = 1_000_000_000

LARGE_FROM_UNITS = 1_000
"""A refund of so many whole units or more needs two approvals, and has its own contract."""


@dataclass(frozen=True, slots=True, order=True)
class Amount:
    """An amount in one currency, exact to a billionth of its unit, like google.type.Money. It may be negative."""

    currency: str
    nanos: int

    @classmethod
    def of(cls, money: Money) -> "Amount":
        """Reads a Money.

        Raises:
            ValueError: if it violates the documentation of Money: |nanos| < 1e9, with the same sign as units.
        """
        if abs(money.nanos) >= NANOS_PER_UNIT:
            raise ValueError(f"amount.nanos: {money.nanos} is a whole unit or more: carry it into amount.units")
        if money.units * money.nanos < 0:
            raise ValueError(f"amount: units {money.units} and nanos {money.nanos} have different signs")
        return cls(money.currency_code, money.units * NANOS_PER_UNIT + money.nanos)

    @classmethod
    def from_parts(cls, currency: str, units: int, nanos: int) -> "Amount":
        """Builds an amount from whole units and billionths; a billion and more billionths are carried."""
        return cls(currency, units * NANOS_PER_UNIT + nanos)

    @property
    def parts(self) -> tuple[int, int]:
        """Whole units and billionths, both with the sign of the amount."""
        units, nanos = divmod(abs(self.nanos), NANOS_PER_UNIT)
        return (units, nanos) if self.nanos >= 0 else (-units, -nanos)

    @property
    def is_large(self) -> bool:
        """Whether a refund of this amount needs two approvals."""
        return self.nanos >= LARGE_FROM_UNITS * NANOS_PER_UNIT

    def __add__(self, other: "Amount") -> "Amount":
        if self.currency != other.currency:
            raise ValueError(f"{self} and {other} have different currencies")
        return Amount(self.currency, self.nanos + other.nanos)

    def __neg__(self) -> "Amount":
        return Amount(self.currency, -self.nanos)

    def __str__(self) -> str:
        """`EUR 1,234.50`."""
        return f"{self.currency} {self.figure}"

    @property
    def figure(self) -> str:
        """`1,234.50`: at least two decimals, more if necessary."""
        units, nanos = (abs(part) for part in self.parts)
        decimals = f"{nanos:09d}"
        sign = "-" if self.nanos < 0 else ""
        return f"{sign}{units:,}.{decimals[:2]}{decimals[2:].rstrip('0')}"
