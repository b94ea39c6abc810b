"""Which flows may leave FLOW, and how long they wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handrail.mesh.setting_parsers import age
from handrail.visibility.archive.ranges import first_uncovered
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.retention.policy import LEAST, Policy
from handrail.visibility.retention.waiting_room import WAIT, WaitingRoom
from tests.support.flows import template

NOW = datetime(2026, 11, 28, 9, 0, 0, 0, UTC)
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    "default,own,kept",
    [
        (WEEK, None, WEEK),
        (WEEK, timedelta(days=1), timedelta(days=1)),
        (WEEK, timedelta(), LEAST),
        (timedelta(), None, LEAST),
        (None, None, None),
        (None, timedelta(days=1), timedelta(days=1)),
    ],
)
def test_a_template_says_how_long_its_flows_stay(
    default: timedelta | None, own: timedelta | None, kept: timedelta | None
) -> None:
    assert Policy(default).age(replace(template(), retention=own)) == kept


def test_a_template_may_keep_its_flows_for_ever() -> None:
    assert Policy(WEEK).age(replace(template(), retention=timedelta(), keep_forever=True)) is None


@pytest.mark.parametrize(
    "text,parsed", [("off", None), ("7d", WEEK), ("15m", timedelta(minutes=15)), ("24h", timedelta(days=1))]
)
def test_an_age_is_a_duration_or_off(text: str, parsed: timedelta | None) -> None:
    assert age(text) == parsed


@pytest.mark.parametrize("text", ["", "7", "for ever", "-1d", "1.5d", "d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        age(text)


def verdict(first: int) -> Verdict:
    return Verdict((first,), {"first_sequence": first}, {}, "1.0")


def test_flows_wait_a_minute_between_their_announcement_and_their_purge() -> None:
    room = WaitingRoom()
    room.take([verdict(1), verdict(2), verdict(3)])
    assert 2 in room
    assert room.next(10, now=NOW + 2 * WAIT) == []  # the round had begun before the announcement
    room.start(now=NOW)
    assert room.next(10, now=NOW + WAIT - timedelta(microseconds=1)) == []
    assert room.next(2, now=NOW + WAIT) == [verdict(1), verdict(2)]
    assert 2 not in room
    assert 3 in room
    assert room.next(2, now=NOW + WAIT) == [verdict(3)]


@pytest.mark.parametrize(
    "absent,covered,lost",
    [
        ([], [], None),
        ([(3, 5)], [], 3),
        ([(3, 5)], [(1, 9)], None),
        ([(3, 5)], [(1, 4)], 5),
        ([(3, 5)], [(4, 9)], 3),
        ([(3, 9)], [(1, 4), (5, 9)], None),
        ([(3, 9)], [(1, 4), (6, 9)], 5),
        ([(3, 3), (8, 8)], [(1, 4)], 8),
    ],
)
def test_p2_a_sequence_that_no_archive_has_is_found(
    absent: list[tuple[int, int]], covered: list[tuple[int, int]], lost: int | None
) -> None:
    assert first_uncovered(absent, covered) == lost
