"""Times and durations as numbers: microseconds since 1970 of archive and index, nanoseconds of the broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANOSECONDS = 1000
"""Of a microsecond."""


def micros(time: datetime) -> int:
    """The microseconds from 1970 to an aware time."""
    since = time - _EPOCH  # by hand: a third of the cost of a division by a timedelta
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_micros(number: int) -> datetime:
    """The time so many microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=number)


def from_nanoseconds(number: int) -> datetime:
    """The time so many nanoseconds after 1970, in UTC, truncated to microseconds."""
    return _EPOCH + timedelta(microseconds=number // _NANOSECONDS)


def in_nanoseconds(duration: timedelta) -> int:
    """A duration as the broker's API wants it."""
    return duration // _MICROSECOND * _NANOSECONDS
