"""The log of activations: what rolled back, and where the next rollback leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.template.activations import logged, version_before
from handrail.v1.template_pb2 import Activation


@pytest.mark.parametrize(
    "log, before",
    [
        ((), 0),
        ((1,), 0),
        ((1, 2), 1),
        ((1, 2, 3), 2),
        ((1, 2, 3, 2), 1),  # 3 was rolled back from
        ((1, 2, 3, 2, 3), 2),
        ((1, 2, 3, 1), 0),
        ((1, 3, 2), 1),  # 2 was not active before, and is older all the same
        ((2, 1), 0),
    ],
)
def test_a_rollback_leads_to_the_version_before(log: tuple[int, ...], before: int) -> None:
    assert version_before(log) == before


@given(st.lists(st.integers(1, 9)))
def test_rollback_after_rollback_leads_back_and_ends(log: list[int]) -> None:
    while before := version_before(log):
        assert before < log[-1]
        assert before in log
        log.append(before)


def test_entries_are_numbered_and_say_what_they_took_the_place_of() -> None:
    entries = list(logged(Activation(version=version) for version in (2, 5, 2)))
    assert [(each.number, each.previous_version, each.rollback) for each in entries] == [
        *((1, 0, False), (2, 2, False), (3, 5, True)),
    ]
