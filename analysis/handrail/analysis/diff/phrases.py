"""Phrases for sentences about templates: names, numbers, durations and enumerations for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

_UNITS = (("h", 3600), ("min", 60), ("s", 1))
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def spoken(duration: timedelta) -> str:
    """A duration in the largest unit that gives a whole number: 30 s, 90 s, 4 h, 500 ms."""
    milliseconds = duration // timedelta(milliseconds=1)
    if not milliseconds or milliseconds % 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds // 1000
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}"


def number(count: int) -> str:
    """A count as a word up to ten."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def people(count: int) -> str:
    """One person, two people."""
    return "one person" if count == 1 else f"{number(count)} people"


def times(count: int) -> str:
    """Once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def enumerated(words: Iterable[str], conjunction: str = "and") -> str:
    """Words in a row, sorted: a, b and c."""
    *most, last = sorted(words)
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def article(word: str) -> str:
    """The word with "a" or "an" before it, chosen by its first letter."""
    return f"{'an' if word[:1] in 'AEIOUaeiou' else 'a'} {word}"


class Names:
    """Short names of message types if they are unique, else full names."""

    def __init__(self, full_names: Iterable[str]) -> None:
        names = set(full_names)
        self._shared = Counter(name.rpartition(".")[2] for name in names)

    def short(self, full_name: str) -> str:
        """The name of one type."""
        last = full_name.rpartition(".")[2]
        return full_name if self._shared[last] > 1 else last

    def any_of(self, full_names: Iterable[str]) -> str:
        """Several types joined by "or"."""
        return enumerated(map(self.short, full_names), "or")

    def all_of(self, full_names: Iterable[str]) -> str:
        """Several types joined by "and"."""
        return enumerated(map(self.short, full_names))
