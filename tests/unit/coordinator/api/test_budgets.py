"""Budgets: nobody gets more than its share, and what is given back can be taken again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.coordinator.api.budgets import Budget, Full, Limit

STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), max_size=60)


@given(STEPS, st.integers(1, 6), st.integers(1, 6))
def test_no_holder_and_not_all_together_pass_their_limit(steps: list[tuple[bool, str]], total: int, each: int) -> None:
    budget, held = Budget(Limit(total=total, each=each)), Counter[str]()
    for takes, holder in steps:
        if takes:
            full = budget.take(holder)
            assert (full is Full.HOLDER) == (held[holder] >= each)
            assert (full is None) == (held[holder] < each and held.total() < total)
            held[holder] += full is None
        elif held[holder]:
            budget.give_back(holder)
            held[holder] -= 1
        assert budget.in_progress == held.total()
        assert budget.holders == len(+held)


def test_what_nobody_took_can_not_be_given_back() -> None:
    budget = Budget(Limit(total=2, each=1))
    assert budget.take("a") is None
    with pytest.raises(ValueError, match="b has no call in progress"):
        budget.give_back("b")
    assert (budget.in_progress, budget.holders) == (1, 1)


def test_a_limit_of_nothing_is_refused() -> None:
    for total, each in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Limit(total=total, each=each)
