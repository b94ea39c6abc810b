"""Absences: times without a running coordinator. They do not count against steps, undos, people or flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

ABSENT_AFTER = timedelta(seconds=15)
"""Shorter silences are not absences: a leader election of the broker takes 4 to 9 s."""

AT_LEAST = timedelta(seconds=30)
"""The minimum time that a deadline gets back, if the absence lasted that long. It equals the ack wait of the durables:
only after it does the broker redeliver the messages of a worker that died."""


@dataclass(frozen=True, slots=True, order=True)
class Absence:
    """The time from the last handled timer until a coordinator was back, by the broker's clock."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """A deadline: due at `due`, running since `since`; earlier absences do not affect it.

    `again` is its minimum time after an absence: the worker may have been down too, and has to start over.
    """

    since: datetime
    due: datetime
    again: timedelta = timedelta()


def disturbing(clock: Clock, absences: Iterable[Absence]) -> list[Absence]:
    """The absences that cost a deadline time, oldest first."""
    return [absence for absence, _ in _losses(clock, absences)]


def moved(clock: Clock, absences: Iterable[Absence], now: datetime) -> datetime | None:
    """When the deadline is due if these absences do not count; None if they cost it nothing.

    The time left at the beginning of an absence is left again at its end. A deadline that fell due meanwhile gets at
    least `again` from `now` on, but no more than it lost.
    """
    lost = sum((lost for _, lost in _losses(clock, absences)), timedelta())
    return max(clock.due + lost, now + min(lost, max(clock.again, AT_LEAST))) if lost else None


def _losses(clock: Clock, absences: Iterable[Absence]) -> Iterator[tuple[Absence, timedelta]]:
    """The time that each absence cost. Each one moves the deadline, so a later one may cost more."""
    due, seen = clock.due, clock.since
    for absence in sorted(absences):
        if absence.start >= due:
            return
        lost = absence.end - max(absence.start, seen)
        if lost > timedelta():
            due, seen = due + lost, absence.end
            yield absence, lost
