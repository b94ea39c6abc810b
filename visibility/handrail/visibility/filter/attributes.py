"""What templates declare for search: comparisons of attributes, and words that are searched for. Pure."""

from __future__ import annotations

from handrail.visibility.filter import quantity
from handrail.visibility.filter.condition import (
    Affix,
    Compare,
    Condition,
    Contains,
    Either,
    HasRow,
    OfFlow,
    Test,
    equal,
)
from handrail.visibility.filter.syntax import Comparator
from handrail.visibility.filter.tokens import refusal
from handrail.visibility.filter.value import Value

LONGEST_PART = 200
"""The most characters that are looked for within a text."""

_TABLE = "attribute"


def present(name: str) -> Condition:
    """The condition that a flow has the attribute."""
    return HasRow(_TABLE, (("name", equal(name)),))


def compared(name: str, comparator: Comparator, value: Value) -> Condition:
    """The condition that an attribute compares so with a value.

    A number without quotes is compared as a number, anything else as a text. `100` equals a text of these digits, too.
    Whole numbers beyond 2^53 equal their digits alone, because numbers are stored as doubles.
    Raises BAD_FILTER for a wildcard that is not compared by `=` or `:`.
    """
    if comparator in (Comparator.EQUAL, Comparator.HAS):
        return present(name) if value.is_anything else _equal(name, comparator, value)
    if value.has_wildcard:
        raise refusal(value.column, f'"{comparator}" takes no *')
    number = _number(value)
    if number is None:
        return _row(name, "text", Compare(comparator, value.text))
    return _row(name, "number", Compare(comparator, number))


def text_test(comparator: Comparator, value: Value) -> Test:
    """The test of a text by `=`, exact and with wildcards, or by `:`, which looks for the value anywhere in it.

    Raises BAD_FILTER for a part of a text that is too long.
    """
    if value.is_anything:
        return Compare(Comparator.NOT_EQUAL, "")
    if comparator is Comparator.HAS:
        return Contains(_part(value))
    if value.has_wildcard:
        return Affix(_part(value) if value.open_start else value.text, value.open_start, value.open_end)
    return equal(value.text)


def searched(value: Value) -> Condition:
    """The condition that a word occurs: at the start of the flow's id, in its reason, or in an attribute.

    Wildcards change nothing. Raises BAD_FILTER if there is no word, or if it is too long.
    """
    if not value.text:
        raise refusal(value.column, "there is nothing to search for")
    part = _part(value)
    return Either(
        (
            HasRow("flow", (("flow_id", Affix(value.text.lower(), open_start=False, open_end=True)),)),
            OfFlow("reason", Contains(part)),
            HasRow(_TABLE, (("text", Contains(part)),)),
        )
    )


def _part(value: Value) -> str:
    """A text that is looked for within others. Databases can't cut off the comparison of a long one with a long one."""
    if len(value.text) > LONGEST_PART:
        raise refusal(
            value.column, f"{len(value.text)} characters are looked for within texts; at most {LONGEST_PART} can be"
        )
    return value.text


def _equal(name: str, comparator: Comparator, value: Value) -> Condition:
    text = _row(name, "text", text_test(comparator, value))
    number = _number(value) if comparator is Comparator.EQUAL else None
    if number is None or quantity.is_beyond_doubles(value.text):
        return text
    return Either((text, _row(name, "number", equal(number))))


def _number(value: Value) -> float | None:
    return None if value.quoted or value.has_wildcard else quantity.number(value.text)


def _row(name: str, column: str, test: Test) -> Condition:
    return HasRow(_TABLE, (("name", equal(name)), (column, test)))
