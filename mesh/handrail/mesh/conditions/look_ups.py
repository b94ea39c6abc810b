"""Names in conditions: `event`, `flow.first`, and look-ups such as `flow.latest['shop.v1.Paid']`.

Facts of a flow are looked up by message type and typed by their own contracts: before compilation each look-up is
replaced by a variable of its type. `event` and `flow.first` are replaced as well, by a variable for the type that they
have, so that all expressions of a template compile in one environment of the engine. Variables are padded to the length
of what they replace, so that the positions in errors stay correct.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from handrail.mesh.errors import PolicyError
from handrail.mesh.printable import cut

EVENT = "event"
"""The name of the message at hand."""

ELAPSED = "flow.elapsed"
"""The name of the time since the flow's first event."""

FIRST = "flow.first"
"""The name of the flow's first event."""

COUNTS, LATEST, FACTS, PROPOSALS = "flow.counts", "flow.latest", "flow.facts", "flow.proposals"
"""The tables of a flow, which are looked up by message type."""

FLOW_TABLES = (COUNTS, LATEST, FACTS, PROPOSALS)

LATEST_OF_JOIN = "latest"
"""The table in the counts of joins."""

_MANY = 300
"""With more known names than this, no similar name is searched: each comparison takes a tenth of a millisecond."""

_LEXEME = re.compile(
    r"""
      [bBrR]{0,2} (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | //[^\n]*
    | (?P<table> (?:flow\s*\.\s*)? (?:latest|counts|facts|proposals))
      \s* \[ \s* (?P<quote>["'])(?P<type>[^"'\\\n]*)(?P=quote) \s* \]
    | (?P<first> flow\s*\.\s*first (?!\w))
    | (?P<elapsed> flow\s*\.\s*elapsed (?!\w))
    | \.\s*[A-Za-z_]\w* | (?P<name> [A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
"""The tokens to tell apart when searching look-ups: strings, comments, look-ups, names after a dot, other names. The
engine refuses a raw string with a backslash before a quote, so raw strings end like all others."""

_LETTERS = {
    COUNTS: "c", LATEST: "l", LATEST_OF_JOIN: "l", FACTS: "f", PROPOSALS: "p", EVENT: "e", FIRST: "s",
}  # fmt: skip

_VARIABLE = re.compile(r"_[clfpes][0-9]+")
_MOST_NUMBERS = 1000
"""A variable is not longer than `event`."""


class Fact(NamedTuple):
    """A look-up in an expression: its table (`flow.latest`, `flow.counts`, `latest`, …), message type and variable."""

    table: str
    message_type: str
    variable: str


def variable(table: str, number: int) -> str:
    """The variable for a table, or for `event` or `flow.first`, with the message type of this number."""
    return f"_{_LETTERS[table]}{number}"


def with_variables(
    text: str, tables: Collection[str], types: Collection[str], numbers: Mapping[str, int]
) -> tuple[str, tuple[Fact, ...]]:
    """A condition with variables in place of its look-ups, and the look-ups.

    `types` are those that may be looked up, `numbers` tells them apart. Raises `PolicyError` for another type.
    """
    facts: dict[tuple[str, str], Fact] = {}

    def replace(match: re.Match[str]) -> str:
        table = "".join((match["table"] or "").split())
        if table not in tables:
            return match[0]
        message_type = match["type"]
        if message_type not in types:
            place = _position(text, match.start())
            raise PolicyError(f'{place}: the flow has no fact "{cut(message_type)}"{nearest(message_type, types)}')
        name = variable(table, numbers[message_type])
        fact = facts.setdefault((table, message_type), Fact(table, message_type, name))
        return _padded(fact.variable, match[0])

    return _LEXEME.sub(replace, text), tuple(facts.values())


def with_typed_names(text: str, source: str, event: int | None, first: int | None) -> str | None:
    """The source of a condition with variables in place of `event` and `flow.first`, whose types have these numbers.

    None if that could change what it means, as with variables of its own called `flow` or `_e1`.
    """
    if max(event or 0, first or 0) >= _MOST_NUMBERS:
        return None
    if any(match["name"] and _VARIABLE.fullmatch(match["name"]) for match in _LEXEME.finditer(text)):
        return None
    is_odd = False

    def replace(match: re.Match[str]) -> str:
        nonlocal is_odd
        if match["first"] and first is not None:
            return _padded(variable(FIRST, first), match[0])
        if match["name"] == EVENT and event is not None:
            return _padded(variable(EVENT, event), match[0])
        is_odd = is_odd or match["name"] == "flow"
        return match[0]

    typed = _LEXEME.sub(replace, source)
    return None if is_odd else typed


def nearest(name: str, known: Collection[str]) -> str:
    """A hint, to append to an error, at the known name most similar to an unknown one; empty if none is similar."""
    if len(known) > _MANY:
        return ""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _padded(name: str, replaced: str) -> str:
    return name + re.sub(r"[^\n]", " ", replaced[len(name) :])


def _position(text: str, offset: int) -> str:
    line_start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - line_start + 1}"
