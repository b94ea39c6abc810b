"""The costs of CEL's functions in addition to a node: a constant, and a part that depends on the arguments' sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from handrail.mesh.conditions.finite import CHECK
from handrail.mesh.conditions.patterns import PatternCost, cost_of_pattern, unknown_pattern
from handrail.mesh.conditions.sizes import Many, Opaque, Size, Text, any_of, copied, copied_contents

Charge = Callable[[Sequence[Size]], int]
"""The units of one call with arguments of these sizes."""

_COMPARED = 20
"""A value that is compared."""

_CHECKED = 200
"""A value that is passed to Python and checked there: 1 to 2 microseconds."""

_COPIED = 6
"""An item of a list that is copied: 25 to 60 ns."""

_PATTERN = 2_000
"""A regular expression, in addition to its parts."""

_LONGEST_PATTERN = 2_000
"""A longer pattern is charged as the most expensive one of its length: reading it would take longer."""


class CallCost(NamedTuple):
    """The cost of a function: units of every call, those that depend on sizes, and the size of what it returns.

    A `result` of None is a number, a bool or a time.
    """

    units: int = 0
    charge: Charge | None = None
    result: Callable[[Sequence[Size]], Size] | None = None


def _compare(sizes: Sequence[Size]) -> int:
    # The engine copies the texts of both sides, whichever ends the comparison.
    return _COMPARED * min(size.nodes for size in sizes) + sum(map(copied_contents, sizes))


def _find_item(sizes: Sequence[Size]) -> int:
    item, items = sizes
    compared = _COMPARED * (items.length + 1) * max(1, min(item.nodes, items.key.nodes))
    return compared + copied(item) + items.length * copied(items.key)


def _read(sizes: Sequence[Size]) -> int:
    """Both texts are read from end to end."""
    return sum(size.length for size in sizes) >> 1


def _search(sizes: Sequence[Size]) -> int:
    """A text is compared at each position of another: the engine's search is quadratic if they nearly match. It
    compares bytes, up to four for a character."""
    return _read(sizes) + (sizes[0].length * sizes[-1].length >> 7)


def _parse(sizes: Sequence[Size]) -> int:
    return 2 * sum(size.length for size in sizes)


def _size_of(sizes: Sequence[Size]) -> int:
    """The characters of a text are counted. The reader leaves this out for lists and maps, which know their size."""
    return sizes[0].length >> 1


def _match(sizes: Sequence[Size]) -> int:
    text, pattern = sizes[0], _pattern(sizes[-1])
    return _PATTERN + pattern.compile + text.length * pattern.step


def _pattern(size: Size) -> PatternCost:
    texts = size.texts
    if texts is None or sum(map(len, texts)) > _LONGEST_PATTERN:
        return unknown_pattern(size.length)
    costs = [cost_of_pattern(text) for text in texts]
    return PatternCost(max(cost.compile for cost in costs), max(cost.step for cost in costs))


def _join(sizes: Sequence[Size]) -> int:
    """Texts and lists are copied: also the list that `map` or `filter` has collected so far, in each round."""
    first, second = sizes
    length = first.length + second.length
    if isinstance(first, Text) and isinstance(second, Text):
        return length >> 1
    return _COPIED * length + copied_contents(first) + copied_contents(second)


def joined_texts(sizes: Sequence[Size]) -> Size:
    """Two texts one after the other: a text, also if one of them is a choice or a wrapped one."""
    first, second = sizes
    length = first.length + second.length
    known = first.texts, second.texts
    if known[0] and known[1] and len(known[0]) == len(known[1]) == 1 and length <= _LONGEST_PATTERN:
        return Text(length, (known[0][0] + known[1][0],))
    return Text(length)


def _joined(sizes: Sequence[Size]) -> Size:
    first, second = sizes
    if isinstance(first, Text) and isinstance(second, Text):
        return joined_texts(sizes)
    return Many(first.length + second.length, any_of([first.item, second.item]))


def _converted(sizes: Sequence[Size]) -> Size:
    """A text of bytes, bytes of a text, or a number or time as text."""
    return Text(64 + 4 * sizes[0].length)


def _check(sizes: Sequence[Size]) -> int:
    return _CHECKED * sizes[0].nodes


def _all_of_it(sizes: Sequence[Size]) -> int:
    return 4 * sum(size.length for size in sizes)


_PLAIN = CallCost()
_EQUAL = CallCost(10, _compare)
_LESS = CallCost(0, _read)
_PARSED = CallCost(100, _parse)
_CONVERTED = CallCost(100, _parse, _converted)
_PART_OF_TIME = CallCost(20, lambda sizes: 5_000)
"""A function with a named time zone: its first use reads a file."""

CALLS: Mapping[str, CallCost] = {
    **dict.fromkeys(("_&&_", "_||_", "!_", "-_", "_-_", "_*_", "_/_", "_%_", "@not_strictly_false", "type"), _PLAIN),
    "_?_:_": CallCost(result=lambda sizes: any_of(sizes[1:])),
    "_+_": CallCost(0, _join, _joined),
    "_==_": _EQUAL,
    "_!=_": _EQUAL,
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _LESS),
    "@in": CallCost(50, _find_item),
    "_[_]": CallCost(10, lambda sizes: copied(sizes[0].item) + copied(sizes[1]), lambda sizes: sizes[0].item),
    "size": CallCost(0, _size_of),
    "contains": CallCost(50, _search),
    "startsWith": CallCost(20, _read),
    "endsWith": CallCost(20, _read),
    "matches": CallCost(0, _match),
    **dict.fromkeys(("int", "uint", "double", "bool", "timestamp", "duration"), _PARSED),
    "string": _CONVERTED,
    "bytes": _CONVERTED,
    "dyn": CallCost(result=lambda sizes: sizes[0]),
    **dict.fromkeys(
        (
            "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek", "getHours",
            "getMinutes", "getSeconds", "getMilliseconds",
        ),
        _PART_OF_TIME,
    ),
    CHECK: CallCost(200, _check),
}  # fmt: skip
"""The functions of CEL, by name."""

UNKNOWN = CallCost(1_000, _all_of_it, lambda sizes: Opaque(64 + sum(size.length for size in sizes)))
"""A function that is not in the table."""
