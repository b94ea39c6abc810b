"""Numbers, durations and times as they are typed. Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

MAX_WHOLE = 2**31 - 1
"""The largest whole number in the index."""

MAX_DURATION = timedelta(days=36500)
"""The longest duration: a hundred years."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_WHOLE = re.compile(r"[0-9]{1,10}")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def number(text: str) -> float | None:
    """Reads `12`, `-0.5` or `2.9e9`; None if it is no number, or too large for one."""
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def is_beyond_doubles(text: str) -> bool:
    """Tells whether it is a whole number of which a double may be another one."""
    return _INTEGER.fullmatch(text) is not None and not -(2**53) <= int(text) <= 2**53


def whole(text: str) -> int | None:
    """Reads a whole number from 0 to MAX_WHOLE; None if it is none."""
    value = int(text) if _WHOLE.fullmatch(text) else MAX_WHOLE + 1
    return value if value <= MAX_WHOLE else None


def duration(text: str) -> timedelta | None:
    """Reads `30s`, `5m`, `1.5h` or `7d`, up to MAX_DURATION; None if it is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    value = float(found[1]) * _UNITS[found[2]]
    return value if value <= MAX_DURATION else None


def time(text: str) -> datetime | None:
    """Reads a time of RFC 3339, or a date, which is its midnight in UTC; None if it is none.

    A fraction of a second is cut to microseconds.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    date, clock, fraction, zone = found.groups()
    offset = "+00:00" if zone is None or zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{date}T{clock or '00:00:00'}{(fraction or '.0')[:7]:0<7}{offset}").astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        return None
