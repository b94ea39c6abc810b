"""Durations as people write them in a template: `30s`, `2h`, `1h30m`, `7d`. The wire has google.protobuf.Duration."""

from __future__ import annotations

import re

from google.protobuf.duration_pb2 import Duration

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))
"""The units that are more than a second, largest first, in seconds."""

_SECONDS = r"([0-9]{1,12})(?:\.([0-9]{1,9}))?s"
_PARTS = re.compile(
    "".join(f"(?:([0-9]{{1,12}}){unit})?" for unit, _ in _UNITS) + f"(?:{_SECONDS})?(?:([0-9]{{1,12}})ms)?"
)
_BELOW_ZERO = re.compile(f"-{_SECONDS}")
_LONGEST = 315_576_000_000
"""The most seconds that a Duration may have: ten thousand years."""


def parse(text: str) -> Duration:
    """Parses numbers with units, the largest first and each once; only seconds may have a fraction: `1h30m`, `0.5s`.
    The JSON form of a Duration is such a text, and `-5s` is another.

    Raises ValueError for any other text, and for more than ten thousand years.
    """
    below = _BELOW_ZERO.fullmatch(text)
    if below is not None:
        return _duration(-int(below[1]), -_nanos(below[2]))
    found = _PARTS.fullmatch(text)
    if found is None or not text:
        raise ValueError(f'"{text}" is not a duration')
    *numbers, seconds, fraction, milliseconds = found.groups()
    whole = sum(int(number or 0) * size for number, (_, size) in zip(numbers, _UNITS, strict=True))
    more, rest = divmod(int(milliseconds or 0) * 10**6 + _nanos(fraction), 10**9)
    return _duration(whole + int(seconds or 0) + more, rest)


def written(duration: Duration) -> str:
    """A duration as `parse` reads it back, with the largest units that it has: `1d`, `1h30m`, `0.5s`."""
    if duration.seconds < 0 or duration.nanos < 0:
        return duration.ToJsonString()
    rest, parts = duration.seconds, []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        parts.append(f"{count}{unit}" if count else "")
    if rest or duration.nanos or not any(parts):
        parts.append(Duration(seconds=rest, nanos=duration.nanos).ToJsonString())
    return "".join(parts)


def _nanos(fraction: str | None) -> int:
    return int((fraction or "").ljust(9, "0"))


def _duration(seconds: int, nanos: int) -> Duration:
    if abs(seconds) > _LONGEST:
        raise ValueError(f"{seconds} s are more than ten thousand years")
    return Duration(seconds=seconds, nanos=nanos)
