"""Notes for people on the evidence of an inferred template, each at a place of the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import timedelta

HEADROOM = 4
"""The factor between the time that nearly all took and the inferred limit."""

_SHARE = 0.99
_NICE = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
_DAY = 86_400


class Notes(dict[str, list[str]]):
    """Notes by the path of their subject: `steps[1].timeout`; notes on the whole template have the empty path."""

    def add(self, path: str, text: str) -> None:
        """Adds a note at this place."""
        self.setdefault(path, []).append(text)


def times(number: int, what: str) -> str:
    """A number of things: `1 flow`, `12 flows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def tally(things: Iterable[str]) -> str:
    """How often each thing occurred, most frequent first: `payments.v1.RefundPaid 12, payments.v1.RefundRefused 1`."""
    return ", ".join(f"{thing} {number:,}" for thing, number in Counter(things).most_common())


def beside(things: Collection[str]) -> str:
    """Like `tally`, for notes beside the things themselves: a single thing is not named again."""
    return f"{len(things):,}" if len(set(things)) == 1 else tally(things)


def span(numbers: Collection[int]) -> str:
    """The minimum and the maximum: `3`, or `1 to 7`."""
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def nearly_all(durations: Collection[timedelta]) -> timedelta:
    """The 99th percentile of the durations."""
    return sorted(durations)[math.ceil(_SHARE * len(durations)) - 1]


def roomy(took: timedelta, *, least: timedelta) -> timedelta:
    """A round limit, well above the time that nearly all took."""
    wanted = max(took * HEADROOM, least).total_seconds()
    nice = next((number for number in _NICE if number >= wanted), math.ceil(wanted / _DAY) * _DAY)
    return timedelta(seconds=nice)


def seconds(duration: timedelta) -> str:
    """A duration as text for people: `0.35 s`."""
    return (
        f"{duration.total_seconds():.3g} s"
        if duration < timedelta(seconds=100)
        else f"{duration.total_seconds():,.0f} s"
    )
