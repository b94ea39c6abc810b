"""Durations in templates: as people write them, and as they are read back."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.template.durations import parse, written

_MOST = 315_576_000_000
DURATIONS = st.builds(
    lambda seconds, nanos, sign: Duration(seconds=sign * seconds, nanos=sign * nanos),
    st.integers(0, _MOST - 1),
    st.integers(0, 10**9 - 1),
    st.sampled_from([1, -1]),
)


@pytest.mark.parametrize(
    "text, seconds, nanos",
    [
        ("30s", 30, 0),
        ("2m", 120, 0),
        ("2h", 7_200, 0),
        ("7d", 604_800, 0),
        ("1h30m", 5_400, 0),
        ("1d2h3m4s5ms", 93_784, 5_000_000),
        ("250ms", 0, 250_000_000),
        ("1500ms", 1, 500_000_000),
        ("90m", 5_400, 0),
        ("0s", 0, 0),
        ("86400s", 86_400, 0),
        ("0.5s", 0, 500_000_000),
        ("1m0.000000001s", 60, 1),
        ("0.6s500ms", 1, 100_000_000),
        ("-0.5s", 0, -500_000_000),
        ("-5s", -5, 0),
        (f"{_MOST}s", _MOST, 0),
    ],
)
def test_a_duration_is_what_a_reader_takes_it_for(text: str, seconds: int, nanos: int) -> None:
    assert parse(text) == Duration(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "30",
            "s",
            "1w",
            "1.5h",
            "1h1h",
            "30m1h",
            "1h 30m",
            " 1h",
            "1h\n",
            "1H",
            "+1h",
            "-1h",
            "1e3s",
            "1_0s",
            "1.s",
            ".5s",
            "\u0663s",
        ),
        *(f"{_MOST + 1}s", "9999999999999d", "999999999999d"),
    ],
)
def test_what_could_be_mistaken_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    "text, plain",
    [("86400s", "1d"), ("14400s", "4h"), ("5400s", "1h30m"), ("129600s", "1d12h"), ("90s", "1m30s"), ("30s", "30s")],
)
def test_a_duration_is_written_in_few_words(text: str, plain: str) -> None:
    assert written(parse(text)) == plain
    assert written(parse(plain)) == plain


@given(DURATIONS)
def test_every_duration_reads_back_as_it_was(duration: Duration) -> None:
    assert parse(written(duration)) == duration
