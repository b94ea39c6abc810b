"""Failures that differ only in what differs each time are the same failure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.visibility.index.signatures import TEXT, normalised, signature


def of(text: str, *, step: str = "pay", error_class: str = "Timeout") -> str:
    return signature(flow_type="refund", step=step, error_class=error_class, text=text)


@pytest.mark.parametrize(
    "one, other",
    [
        ("order 4711 is closed", "order 4712 is closed"),
        ("no answer from https://bank.test/a?id=1", "no answer from https://bank.test/b"),
        ("account 0b1c9d3e-5f60-4a7b-8c9d-0e1f2a3b4c5d", "account 11111111-5f60-4a7b-8c9d-0e1f2a3b4c5d"),
        ("at 2030-01-01T10:00:00Z", "at 2031-12-31 11:30:00.5+02:00"),
        ("'kim' is unknown", "'ann' is unknown"),
        ("flow 0123456789abcdef0123456789abcdef", "flow fedcba9876543210fedcba9876543210"),
        ("took  3.5 s\n", "took 12 s"),
    ],
)
def test_what_differs_each_time_does_not_count(one: str, other: str) -> None:
    assert of(one) == of(other)


@pytest.mark.parametrize(
    "other",
    [
        signature(flow_type="loan", step="pay", error_class="Timeout", text="no answer"),
        of("no answer", step="ask"),
        of("no answer", error_class="Refused"),
        of("no money"),
    ],
)
def test_type_step_class_and_words_count(other: str) -> None:
    assert of("no answer") != other


@given(st.text(max_size=2000))
def test_any_text_is_normalised_to_one_short_line_and_stays_so(text: str) -> None:
    short = normalised(text)
    assert len(short) <= TEXT
    assert "\n" not in short
    assert of(text) == of(text)
