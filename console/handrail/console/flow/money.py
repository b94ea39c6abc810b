"""Amounts of money in payloads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

_KEYS = frozenset({"currencyCode", "units", "nanos"})


def amount(value: object) -> str:
    """`1,240.00 EUR` for a google.type.Money in JSON; empty for anything else."""
    if not isinstance(value, Mapping) or "currencyCode" not in value or not value.keys() <= _KEYS:
        return ""
    try:
        total = Decimal(str(value.get("units", "0"))) + Decimal(str(value.get("nanos", "0"))) / 1_000_000_000
    except InvalidOperation:
        return ""
    if not total.is_finite():
        return ""
    places = max(2, -int(total.normalize().as_tuple().exponent))
    return f"{total:,.{places}f} {value['currencyCode']}"


def only_amount(fields: Mapping[str, object]) -> str:
    """The amount in a payload, if it has exactly one; otherwise empty."""
    found = [each for each in map(amount, fields.values()) if each]
    return found[0] if len(found) == 1 else ""
