"""The cost of a regular expression: of compiling it, and of each character that it is matched against.

The engine uses RE2. Its time is linear in the text, and it grows with the compiled program; without a cache of states
it walks the whole program at each character. The engine compiles a pattern at each use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(
    r"""
      (?P<unicode> \\[pP](?:\{[^}]*\}|.)?)
    | (?P<quoted> \\Q.*?(?:\\E|$))
    | (?P<class> \[\^?\]?(?:\[:\^?\w*:\]|\\.|[^\]\\])*\]?)
    | (?P<count> \{(?P<least>[0-9]+)(?P<comma>,)?(?P<most>[0-9]*)\})
    | (?P<open> \((?:\?(?:P?<\w*>|[a-zA-Z-]*:?))?)
    | (?P<close> \))
    | (?P<repeat> [*+?])
    | (?P<any> \. | \\[DWSXC])
    | (?P<literal> \\x\{[^}]*\} | \\. | .)
    """,
    re.VERBOSE | re.DOTALL,
)

_LARGEST = 131_072
"""The most instructions that RE2 compiles in its default memory. A larger program fails after as much work."""


@dataclass(frozen=True, slots=True)
class PatternCost:
    """The cost of a pattern, in the units of `cost`: once at each use, and for each character of the text."""

    compile: int
    step: int


_LITERAL = PatternCost(100, 4)
_CLASS = PatternCost(600, 20)
_UNICODE = PatternCost(400_000, 4_000)
"""A class such as `\\pL`: hundreds of ranges of characters."""


@lru_cache(maxsize=256)
def cost_of_pattern(pattern: str) -> PatternCost:
    """An upper bound of a pattern's cost. Repeated groups multiply; a pattern that RE2 refuses has a cost, too."""
    outer: list[list[PatternCost]] = []
    parts: list[PatternCost] = []
    unicode_letters = 1
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind in ("most", "least", "comma") or token["count"]:
            times = max(int(token["least"][:5] or 0) + bool(token["comma"]), int(token["most"][:5] or 0), 1)
            if parts:
                parts.append(_times(parts.pop(), times))
        elif kind == "open":
            if "i" in token["open"]:
                unicode_letters = 3  # letters without case: a class each
            outer.append(parts)
            parts = []
        elif kind == "close" and outer:
            group = _sum([_LITERAL, *parts])
            parts = outer.pop()
            parts.append(group)
        elif kind == "unicode":
            parts.append(_UNICODE)
        elif kind == "class":
            heavy = "\\p" in token["class"] or "\\P" in token["class"]
            one = _UNICODE if heavy else _CLASS
            parts.append(_times(one, token["class"].count("\\") + 1) if heavy else _grown(one, len(token["class"])))
        elif kind == "quoted":
            parts.append(_times(_LITERAL, len(token["quoted"])))
        else:
            parts.append(_CLASS if kind == "any" else _LITERAL)
    while outer:
        parts = [*outer.pop(), *parts]
    total = _times(_sum(parts), unicode_letters)
    return PatternCost(total.compile, min(total.step, _LARGEST * _LITERAL.step))


def unknown_pattern(length: int) -> PatternCost:
    """The highest cost of a pattern of this many characters."""
    return PatternCost(length * _UNICODE.compile, min(length * 1000, _LARGEST) * _LITERAL.step)


def _sum(parts: list[PatternCost]) -> PatternCost:
    return PatternCost(sum(part.compile for part in parts), sum(part.step for part in parts))


def _times(part: PatternCost, times: int) -> PatternCost:
    return PatternCost(part.compile * times, part.step * times)


def _grown(part: PatternCost, ranges: int) -> PatternCost:
    """The cost of a class with this many characters between its brackets."""
    return PatternCost(part.compile + _LITERAL.compile * ranges, part.step + ranges)
