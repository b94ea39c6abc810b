"""Time in which nobody was there does not count: by how much a deadline moves."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.flow.absence import AT_LEAST, Absence, Clock, disturbing, moved
from tests.support.simulation import BEGINNING

TIMEOUT = timedelta(seconds=60)


def at(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)


def away(start: float, end: float) -> Absence:
    return Absence(at(start), at(end))


def step(since: float = 0, timeout: timedelta = TIMEOUT) -> Clock:
    return Clock(at(since), at(since) + timeout, timeout)


def test_without_an_absence_nothing_moves() -> None:
    assert moved(step(), [], at(60)) is None


def test_an_absence_before_it_began_or_after_it_was_due_is_none_of_its() -> None:
    assert moved(step(100), [away(10, 50), away(160, 500)], at(600)) is None


def test_what_an_absence_took_is_given_back() -> None:
    assert moved(Clock(at(0), at(60)), [away(10, 30)], at(60)) == at(80)


def test_what_was_left_when_nobody_was_there_any_more_is_left_when_somebody_is_back() -> None:
    hours = Clock(at(0), at(4 * 3600))
    assert moved(hours, [away(3600, 20 * 3600)], at(20 * 3600)) == at(23 * 3600)


def test_a_step_has_its_time_again_because_its_agent_may_have_been_away_too() -> None:
    assert moved(step(), [away(59, 3600)], at(3605)) == at(3665)


def test_a_short_step_has_the_time_that_the_broker_takes_to_hand_it_out_again() -> None:
    assert moved(step(timeout=timedelta(seconds=2)), [away(1, 3600)], at(3600)) == at(3600) + AT_LEAST


def test_a_long_step_has_no_more_from_now_on_than_it_lost() -> None:
    assert moved(step(timeout=timedelta(hours=1)), [away(3590, 3610)], at(3610)) == at(3630)


def test_a_credit_leads_into_the_next_absence() -> None:
    """A deadline of 60 s loses 20 s to an absence; before the credited 20 s are over, another absence begins."""
    absences = [away(10, 30), away(70, 1000)]
    assert disturbing(step(), absences) == absences
    assert moved(Clock(at(0), at(60)), absences, at(60)) == at(60 + 20 + 930)


def test_absences_that_overlap_count_once() -> None:
    assert moved(Clock(at(0), at(60)), [away(20, 50), away(10, 30)], at(1000)) == at(1000) + min(
        timedelta(seconds=40), AT_LEAST
    )


@st.composite
def absences(draw: st.DrawFn) -> list[Absence]:
    found = []
    for start, length in draw(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 200)), max_size=5)):
        found.append(away(start, start + length))
    return found


def watched(found: list[Absence], start: datetime, end: datetime) -> timedelta:
    """The time between two moments in which somebody was there, second by second."""
    seconds = int((end - start).total_seconds())
    there = sum(not any(a.start <= start + timedelta(seconds=s) < a.end for a in found) for s in range(seconds))
    return timedelta(seconds=there)


@given(absences(), st.integers(0, 300), st.integers(1, 300), st.integers(0, 300))
def test_p7_nobody_has_less_time_than_was_promised_and_no_more_than_was_lost(
    found: list[Absence], since: int, timeout: int, late: int
) -> None:
    clock = Clock(at(since), at(since + timeout), timedelta(seconds=timeout))
    now = clock.due + timedelta(seconds=late)
    until = moved(clock, found, now)
    if until is None:
        assert watched(found, clock.since, clock.due) == timedelta(seconds=timeout)
        return
    assert watched(found, clock.since, until) >= timedelta(seconds=timeout)
    lost = sum((a.end - a.start for a in found), timedelta())
    assert clock.due < until <= max(clock.due, now) + lost
    later = moved(clock, found, now + timedelta(seconds=1))
    assert later is not None
    assert later >= until, "what was decided a moment ago still counts"
