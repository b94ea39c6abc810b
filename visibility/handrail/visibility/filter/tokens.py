"""The tokens of a filter, each with its column. Pure.

A word goes on to the next space, parenthesis or comparator. After a comparator a word may also contain colons and begin
with a minus, so that times and numbers need no quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean, shortened
from handrail.v1.error_reason_pb2 import ErrorReason

MAX_LENGTH = 2000
"""The most characters in a filter."""

_SPACES = re.compile(r"\s*")
_STRING = re.compile(r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' """, re.VERBOSE | re.DOTALL)
_COMPARATOR = re.compile(r"<=|>=|!=|[=<>:]")
_WORD = re.compile(r"(?:[^\s()<>=:!]|!(?!=))+")
_WORD_AFTER_COMPARATOR = re.compile(r"(?:[^\s()<>=!]|!(?!=))+")
_IMPOSSIBLE = re.compile(r"[\0\ud800-\udfff]")
_SHOWN = 40


class Kind(Enum):
    """What a token is, in the words of an error."""

    WORD = "a word"
    STRING = "a string"
    COMPARATOR = "a comparator"
    OPEN = '"("'
    CLOSE = '")"'
    MINUS = '"-"'
    AND = "AND"
    OR = "OR"
    NOT = "NOT"
    END = "the end"


_KEYWORDS = {kind.value: kind for kind in (Kind.AND, Kind.OR, Kind.NOT)}
_SIGNS = {"(": Kind.OPEN, ")": Kind.CLOSE}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a filter as it was typed; columns count from 1."""

    kind: Kind
    text: str
    column: int

    def __str__(self) -> str:
        return self.kind.value if self.kind is Kind.END else shown(self.text)


def tokens(text: str) -> Iterator[Token]:
    """Splits a filter; the last token is END. Raises BAD_FILTER."""
    if len(text) > MAX_LENGTH:
        raise refusal(MAX_LENGTH + 1, f"it is longer than {MAX_LENGTH:,} characters")
    check_storable(text, 1)
    at, after_comparator = 0, False
    while True:
        at = _end(_SPACES, text, at)
        token = _token(text, at, after_comparator=after_comparator)
        yield token
        if token.kind is Kind.END:
            return
        at += len(token.text)
        after_comparator = token.kind is Kind.COMPARATOR


def check_storable(text: str, column: int) -> None:
    """Raises BAD_FILTER if the text has a character that databases can't hold: NUL, or half of a surrogate pair."""
    found = _IMPOSSIBLE.search(text)
    if found is not None:
        raise refusal(column + found.start(), f"the character {clean(found[0])} can't be stored, so nothing has it")


def refusal(column: int, text: str) -> HandrailError:
    """The error for a filter that is wrong at a column."""
    return HandrailError(
        ErrorReason.ERROR_REASON_BAD_FILTER, f"the filter is wrong at column {column}: {text}", column=str(column)
    )


def shown(text: str) -> str:
    """What somebody typed, for use in an error: in quotes, printable and short."""
    return f'"{shortened(clean(text[: 2 * _SHOWN]), _SHOWN)}"'


def _token(text: str, at: int, *, after_comparator: bool) -> Token:
    column = at + 1
    if at == len(text):
        return Token(Kind.END, "", column)
    first = text[at]
    if first in _SIGNS:
        return Token(_SIGNS[first], first, column)
    if first in "\"'":
        end = _end(_STRING, text, at)
        if end == at:
            raise refusal(column, f"the string that begins with {first} does not end")
        return Token(Kind.STRING, text[at:end], column)
    end = _end(_COMPARATOR, text, at)
    if end > at:
        return Token(Kind.COMPARATOR, text[at:end], column)
    if first == "-" and not after_comparator:
        return Token(Kind.MINUS, first, column)
    word = text[at : _end(_WORD_AFTER_COMPARATOR if after_comparator else _WORD, text, at)]
    if not word.isprintable():
        raise refusal(column, f"{shown(word)} has a character that can't be seen; put it in quotes, or delete it")
    return Token(_KEYWORDS.get(word, Kind.WORD), word, column)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a match at this place ends; the place itself if there is none."""
    found = pattern.match(text, at)
    return at if found is None else found.end()
