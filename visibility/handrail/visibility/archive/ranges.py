"""Ranges of sequences, both ends included. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def ranges(sequences: Iterable[int]) -> tuple[Range, ...]:
    """The fewest ranges that hold these sequences, in order."""
    found: list[Range] = []
    for sequence in sorted(set(sequences)):
        if found and found[-1][1] == sequence - 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return tuple(found)


def sequences(of: Iterable[Range]) -> Iterable[int]:
    """The sequences in ranges."""
    return (sequence for first, last in of for sequence in range(first, last + 1))


def length(of: Iterable[Range]) -> int:
    """How many sequences there are in ranges that share none."""
    return sum(last - first + 1 for first, last in of)


def contains(of: Sequence[Range], sequence: int) -> bool:
    """Whether a sequence is in one of the ranges, which are in order."""
    index = bisect_right(of, sequence, key=lambda each: each[0]) - 1
    return index >= 0 and sequence <= of[index][1]


def are_ordered(of: Sequence[Range], *, within: Range) -> bool:
    """Whether the ranges rise, share no sequence, and lie within another range."""
    ends = [within[0] - 1, *(end for each in of for end in each), within[1] + 1]
    firsts, lasts = ends[1::2], ends[::2]
    return all(last < first for last, first in zip(lasts, firsts, strict=True)) and all(a <= b for a, b in of)


def first_uncovered(of: Sequence[Range], by: Sequence[Range]) -> int | None:
    """The first sequence of some ranges that is in none of others, which may overlap; both in order of their firsts."""
    for first, last in of:
        lost = first
        for begin, end in by:
            if begin <= lost <= end:
                lost = end + 1
        if lost <= last:
            return lost
    return None
