"""Tables on a terminal fit it; ids are cut where they still differ, and times say how long ago they were."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.cli import terminal
from handrail.cli.terminal import Id, Moment, relative

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def eighty() -> Iterator[None]:
    """A terminal of 80 columns without colours."""
    with mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}):
        yield


@given(st.lists(st.lists(st.text(alphabet="ab é", max_size=200), min_size=6, max_size=6), min_size=1, max_size=5))
def test_a_table_fits_eighty_columns(rows: list[list[str]]) -> None:
    assert max(map(len, terminal.table(("A", "B", "C", "D", "E", "F"), rows))) <= 80


@given(st.lists(st.integers(0, 2**128 - 1), min_size=2, max_size=20, unique=True), st.booleans())
def test_ids_that_are_cut_still_differ(numbers: list[int], near: bool) -> None:
    ids = [f"{number >> 64 if near else number:032x}" for number in numbers]
    rows = [(Id(each), "x" * 70) for each in dict.fromkeys(ids)]
    shown = [line.split()[0] for line in terminal.table(("FLOW", "DATA"), rows)[1:]]
    assert len(set(shown)) == len(rows)
    assert all(flow_id.startswith(cut) for (flow_id, _), cut in zip(rows, shown, strict=True))


def test_ids_are_whole_where_there_is_room() -> None:
    assert terminal.table(("FLOW",), [(Id("a" * 32),)]) == ["FLOW", "a" * 32]


def test_an_approval_is_cut_in_both_of_its_ids() -> None:
    rows = [(Id(f"refund.{'a' * 32}.{'b' * 32}"), "x" * 40)]
    assert terminal.table(("APPROVAL", "DATA"), rows)[1].split()[0] == f"refund.{'a' * 12}.{'b' * 12}"


@pytest.mark.parametrize(
    "ago, text",
    [
        (timedelta(), "now"),
        (timedelta(milliseconds=999), "now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=3, seconds=59), "3 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=400), "400 d ago"),
        (-timedelta(hours=2), "in 2 h"),
    ],
)
def test_a_time_is_told_by_its_distance(ago: timedelta, text: str) -> None:
    assert relative(NOW - ago, NOW) == text


def test_a_table_shows_how_long_ago_a_time_was() -> None:
    moment = Moment.of("2026-11-28", datetime.now(UTC) - timedelta(days=2, hours=1))
    assert terminal.table(("AT",), [(moment,)]) == ["AT", "2 d ago"]


def test_colours_are_for_terminals_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert not terminal.has_colours(), "NO_COLOR is set"
    monkeypatch.setenv("NO_COLOR", "")
    header, row = terminal.table(("STATUS", "REASON"), [("FAILED", "late")])
    assert header == "\x1b[1mSTATUS  REASON\x1b[0m"
    assert row == "\x1b[31mFAILED\x1b[0m  late"
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.table(("STATUS",), [("FAILED",)]) == ["STATUS", "FAILED"]
