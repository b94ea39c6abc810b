"""Times, durations and ids as pages show them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handrail.mesh.printable import shortened

_LONGEST_NAME = 40


def exactly(time: datetime) -> str:
    """A time in full: `2026-11-28 10:02:13 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def moment(time: datetime, now: datetime) -> str:
    """A time as short as it can be told from the present: `10:02`, or `27 Nov 10:02`, or with the year."""
    time, now = time.astimezone(UTC), now.astimezone(UTC)
    if time.date() == now.date():
        return f"{time:%H:%M}"
    return f"{time.day} {time:%b %H:%M}" if time.year == now.year else f"{time.day} {time:%b %Y %H:%M}"


def clock(time: datetime) -> str:
    """The time of day to the second: `10:02:13`."""
    return f"{time.astimezone(UTC):%H:%M:%S}"


def lasting(span: timedelta) -> str:
    """A duration in its two largest units: `24 ms`, `1.2 s`, `12 s`, `52 min`, `3 h 9 min`, `2 d 4 h`."""
    seconds = max(span, timedelta()).total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def distance(time: datetime, now: datetime) -> str:
    """How far a time is from now: `in 3 h 9 min`, `52 min ago`."""
    return f"in {lasting(time - now)}" if time >= now else f"{lasting(now - time)} ago"


def short_name(key: str) -> str:
    """A business key, cut if it is long."""
    return shortened(key, _LONGEST_NAME)


def short_id(identifier: str) -> str:
    """An id as its first four and last two characters: `7f3a…c2`."""
    return identifier if len(identifier) <= 8 else f"{identifier[:4]}…{identifier[-2:]}"
