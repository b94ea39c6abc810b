"""A value as it was typed: its text, whether in quotes, and the wildcards at its ends. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from handrail.visibility.filter.tokens import Kind, Token, check_storable, refusal, shown

_PIECE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", re.DOTALL)
_ESCAPES = ("\\\\", '\\"', "\\'", "\\*")
_LARGEST = 0x10FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A text to compare with. A `*` before it is `open_start`, one after it `open_end`; a lone `*` is at the end."""

    text: str
    quoted: bool = False
    open_start: bool = False
    open_end: bool = False
    column: int = field(default=0, compare=False)

    @property
    def has_wildcard(self) -> bool:
        """Whether a `*` stands at one of its ends."""
        return self.open_start or self.open_end

    @property
    def is_anything(self) -> bool:
        """Whether it is nothing but wildcards."""
        return self.has_wildcard and not self.text

    def __str__(self) -> str:
        """The value as it may be typed; printable."""
        start, end = "*" * self.open_start, "*" * self.open_end
        return f'"{start}{"".join(map(_escaped, self.text))}{end}"' if self.quoted else f"{start}{self.text}{end}"


def value_of(token: Token) -> Value:
    """Reads a word or a string. Raises BAD_FILTER for a `*` in the middle and for a wrong escape."""
    quoted = token.kind is Kind.STRING
    pieces = _PIECE.findall(token.text[1:-1]) if quoted else list(token.text)
    open_start = len(pieces) > 1 and pieces[0] == "*"
    open_end = len(pieces) > 0 and pieces[-1] == "*"
    inner = pieces[open_start : len(pieces) - open_end]
    if "*" in inner:
        raise refusal(token.column, 'a * stands at the start or the end of a value; for the character write "\\*"')
    text = "".join(_unescaped(each, token.column) for each in inner) if quoted else "".join(inner)
    check_storable(text, token.column)
    return Value(text=text, quoted=quoted, open_start=open_start, open_end=open_end, column=token.column)


def _unescaped(piece: str, column: int) -> str:
    if len(piece) == 1 or piece in _ESCAPES:
        return piece[-1]
    code = int(piece[2:], 16) if len(piece) > 2 else _LARGEST + 1
    if code > _LARGEST:
        raise refusal(column, f"{shown(piece)} means nothing; a backslash itself is \\\\")
    return chr(code)


def _escaped(character: str) -> str:
    if character in '"\\*':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= 0xFFFF else f"\\U{ord(character):08x}"
