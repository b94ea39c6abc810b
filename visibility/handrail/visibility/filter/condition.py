"""What a checked filter asks of the tables of the index: tests of columns, joined by and, or and not.

Every test is true or false: an empty column (NULL) passes none, and `Not` of that is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handrail.visibility.filter.syntax import Comparator


@dataclass(frozen=True, slots=True)
class Compare:
    """A value that compares so, by any comparator but `:`; texts compare by the code points of their characters."""

    comparator: Comparator
    value: str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Affix:
    """A text that begins with `text`, if `open_end`; ends with it, if `open_start`; contains it, if both."""

    text: str
    open_start: bool
    open_end: bool


@dataclass(frozen=True, slots=True)
class Contains:
    """A text that contains `text`, in capitals or not; that holds for the letters of ASCII only."""

    text: str


@dataclass(frozen=True, slots=True)
class Present:
    """Any value."""


Test = Compare | Affix | Contains | Present


@dataclass(frozen=True, slots=True)
class OfFlow:
    """A test of a column of `flow`."""

    column: str
    test: Test


@dataclass(frozen=True, slots=True)
class HasRow:
    """The flow has a row in a table of which all tests hold; they are pairs of a column and its test.

    The table may be `flow`: then the row is looked up by itself, whatever else is asked for.
    """

    table: str
    tests: tuple[tuple[str, Test], ...]


@dataclass(frozen=True, slots=True)
class IsOneOf:
    """The flow is one of these: pairs of a flow type and a flow id."""

    flows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class No:
    """The opposite of a condition."""

    item: Condition


@dataclass(frozen=True, slots=True)
class All:
    """All of these; true if there are none."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of these; false if there are none."""

    items: tuple[Condition, ...]


Condition = OfFlow | HasRow | IsOneOf | No | All | Either


def equal(value: str | float | bool) -> Compare:
    """The test for this value."""
    return Compare(Comparator.EQUAL, value)
