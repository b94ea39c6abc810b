"""Sparklines: how many flows of a type began and failed in each of the last hours, as an SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.v1.flow_service_pb2 import FlowHour

HOURS = 24
WIDTH, HEIGHT = HOURS * 4, 20
_BAR = 3
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sparkline:
    """How many flows began and failed, by hour, the present one last.

    `began` and `failed` are all of them; `began_bars` and `failed_bars` are the paths of the bars, on one scale; `text`
    says the same in words.
    """

    began: int
    failed: int
    began_bars: str
    failed_bars: str
    text: str


def sparklines(found: Iterable[FlowHour], now: datetime) -> dict[str, Sparkline]:
    """The sparkline of each flow type of which any flow began or failed within the last hours."""
    first = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - (HOURS - 1) * _HOUR
    counted: dict[str, tuple[list[int], list[int]]] = {}
    for each in found:
        place = (each.hour.ToDatetime(UTC) - first) // _HOUR
        if 0 <= place < HOURS:
            began, failed = counted.setdefault(each.flow_type, ([0] * HOURS, [0] * HOURS))
            began[place], failed[place] = each.began, each.failed
    return {name: _sparkline(*each, first) for name, each in counted.items()}


def _sparkline(began: Sequence[int], failed: Sequence[int], first: datetime) -> Sparkline:
    most = max(*began, *failed)
    text = f"{sum(began):,} began in {HOURS} hours"
    if any(began):
        text += f", most of them, {max(began):,}, in the hour from {_clock(first, began.index(max(began)))}"
    if any(failed):
        last = max(place for place, number in enumerate(failed) if number)
        text += f"; {sum(failed):,} failed, the last in the hour from {_clock(first, last)}"
    return Sparkline(sum(began), sum(failed), _bars(began, most, 1), _bars(failed, most, 3), text)


def _bars(numbers: Sequence[int], most: int, least: int) -> str:
    """A path with a bar for each number that is not zero, at least so many pixels high."""
    bars = []
    for place, number in enumerate(numbers):
        height = max(least, round(HEIGHT * number / most)) if number else 0
        if height:
            bars.append(f"M{place * 4} {HEIGHT}v-{height}h{_BAR}v{height}z")
    return "".join(bars)


def _clock(first: datetime, place: int) -> str:
    return f"{first + place * _HOUR:%H:%M} UTC"
