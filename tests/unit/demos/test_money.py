"""Amounts of money in the payments demo are exact."""

import pytest
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st

from demos.payments.money import NANOS_PER_UNIT, Amount

AMOUNTS = st.builds(Amount, st.just("EUR"), st.integers(-(2**62), 2**62))


@given(AMOUNTS)
def test_an_amount_survives_the_way_through_money(amount: Amount) -> None:
    units, nanos = amount.parts
    assert Amount.of(Money(currency_code="EUR", units=units, nanos=nanos)) == amount
    assert Amount.from_parts("EUR", units, nanos) == amount


@given(AMOUNTS, AMOUNTS)
def test_the_sum_of_parts_is_the_sum_of_amounts(one: Amount, other: Amount) -> None:
    units, nanos = (sum(part) for part in zip(one.parts, other.parts, strict=True))
    assert Amount.from_parts("EUR", units, nanos) == one + other


@pytest.mark.parametrize(
    "units, nanos", [(0, NANOS_PER_UNIT), (999, NANOS_PER_UNIT + 1), (0, -NANOS_PER_UNIT), (1, -1), (-1, 1)]
)
def test_what_is_no_money_by_its_own_documentation_is_refused(units: int, nanos: int) -> None:
    with pytest.raises(ValueError, match="amount"):
        Amount.of(Money(currency_code="EUR", units=units, nanos=nanos))


def test_amounts_of_two_currencies_are_not_added() -> None:
    with pytest.raises(ValueError, match="different currencies"):
        Amount("EUR", 1) + Amount("USD", 1)


@pytest.mark.parametrize("units, nanos, large", [(999, 999_999_999, False), (1_000, 0, True), (1_000, 1, True)])
def test_a_refund_is_large_from_1000_on(units: int, nanos: int, large: bool) -> None:
    assert Amount.from_parts("EUR", units, nanos).is_large is large


@pytest.mark.parametrize(
    "units, nanos, shown",
    [
        (1234, 500_000_000, "EUR 1,234.50"),
        (0, 10_000_000, "EUR 0.01"),
        (0, -10_000_000, "EUR -0.01"),
        (-7, 0, "EUR -7.00"),
        (0, 1, "EUR 0.000000001"),
    ],
)
def test_an_amount_is_shown_with_all_its_decimals(units: int, nanos: int, shown: str) -> None:
    assert str(Amount.from_parts("EUR", units, nanos)) == shown
