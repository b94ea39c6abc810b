"""Absences: times in which no coordinator was there. They do not count against steps, undos, people or flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

ABSENT_AFTER = timedelta(seconds=15)
"""A shorter silence is no absence: an election of the broker's leader takes 4 to 9 s."""

AT_LEAST = timedelta(seconds=30)
"""What is given back at least, where the absence was as long. It is the ack wait of the durables: only then does the
broker hand out again what a worker that went down with everything had in its hands."""


@dataclass(frozen=True, slots=True, order=True)
class Absence:
    """From when timers were last handled until somebody was back, by the broker's clock."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """A deadline: due at `due`, running since `since`; absences before that are none of its.

    `again` is what it gets at least after an absence: who works at it may have been away too, and has to start over.
    """

    since: datetime
    due: datetime
    again: timedelta = timedelta()


def disturbing(clock: Clock, absences: Iterable[Absence]) -> list[Absence]:
    """The absences that took time from a deadline, oldest first."""
    return [absence for absence, _ in _losses(clock, absences)]


def moved(clock: Clock, absences: Iterable[Absence], now: datetime) -> datetime | None:
    """When the deadline is due if these absences do not count; None where they took nothing from it.

    The time that was left when nobody was there any more is left when somebody is back; what was due in the meantime
    has at least `again` from `now` on, but no more than it lost.
    """
    lost = sum((lost for _, lost in _losses(clock, absences)), timedelta())
    return max(clock.due + lost, now + min(lost, max(clock.again, AT_LEAST))) if lost else None


def _losses(clock: Clock, absences: Iterable[Absence]) -> Iterator[tuple[Absence, timedelta]]:
    """What each absence took. Each moves the deadline, so that a later one may take more."""
    due, seen = clock.due, clock.since
    for absence in sorted(absences):
        if absence.start >= due:
            return
        lost = absence.end - max(absence.start, seen)
        if lost > timedelta():
            due, seen = due + lost, absence.end
            yield absence, lost
