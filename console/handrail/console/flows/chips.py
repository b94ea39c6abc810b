"""The conditions of a filter as chips that can be taken away, and those that can be added. Pure.

Only filters that are plain conditions beside each other become chips; any other filter stays a text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_WORD = r"[^\s()\"'<>=!:]+"
_CONDITION = re.compile(
    rf"(?:NOT\s+|-)?(?:{_WORD}\s*(?:<=|>=|!=|=|<|>|:)\s*(?:{_QUOTED}|{_WORD}(?::{_WORD})*)|{_QUOTED}|{_WORD})"
)
_BETWEEN = re.compile(r"\s+AND\s+|\s+")
_NOT_PLAIN = frozenset({"OR", "AND", "NOT"})


class Chip(NamedTuple):
    """A condition, and the filter without it, or with it."""

    label: str
    filter: str


OFFERED = (
    ("Needs a person", "stuck"),
    ("Waiting for approval", "waiting"),
    ("Overdue", "overdue"),
    ("Retrying", "retrying"),
    ("Running", "status = RUNNING"),
    ("Failed", "status = FAILED"),
    ("Completed", "status = COMPLETED"),
)
"""What people look for, most urgent first: a label, and its condition."""


def conditions(text: str) -> list[str]:
    """The conditions of a filter, if they only stand beside each other; otherwise none."""
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _CONDITION.match(text, at)
        if match is None or match[0] in _NOT_PLAIN:
            return []
        found.append(match[0])
        at = match.end()
        between = _BETWEEN.match(text, at)
        if between is None and at < len(text):
            return []
        at = between.end() if between else at
    return found


def active(text: str) -> list[Chip]:
    """A chip for each condition of a filter; its own filter is the one without it."""
    found = conditions(text)
    return [Chip(each, " ".join(found[:number] + found[number + 1 :])) for number, each in enumerate(found)]


def offered(text: str) -> list[Chip]:
    """The chips that can be added to a filter; none to a filter that is no row of conditions."""
    there = conditions(text)
    if text.strip() and not there:
        return []
    return [Chip(label, " ".join([*there, condition])) for label, condition in OFFERED if condition not in there]
