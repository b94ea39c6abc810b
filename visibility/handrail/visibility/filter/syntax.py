"""The tree of a filter, and the parser. Pure.

    filter      = [ sequence ]
    sequence    = choice { [ "AND" ] choice }
    choice      = term { "OR" term }
    term        = [ "NOT" | "-" ] ( comparison | word | "(" sequence ")" )
    comparison  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value

As in AIP-160, OR binds tighter than AND, and the keywords are written in capitals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from handrail.mesh.errors import HandrailError
from handrail.visibility.filter.tokens import Kind, Token, refusal, shown, tokens
from handrail.visibility.filter.value import Value, value_of

MAX_DEPTH = 20
"""The most parentheses within each other."""

MAX_CONDITIONS = 50
"""The most comparisons and words in a filter."""


class Comparator(StrEnum):
    """What stands between a field and a value; HAS is a colon."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field compared with a value."""

    name: str
    comparator: Comparator
    value: Value
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Word:
    """A value alone: the name of a field that is true or false, or a text to search for."""

    value: Value


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a part."""

    item: Node


@dataclass(frozen=True, slots=True)
class And:
    """Parts that must all hold. The empty filter has none, and holds of every flow."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Parts of which one must hold."""

    items: tuple[Node, ...]


Node = Comparison | Word | Not | And | Or

_NEGATIONS = (Kind.NOT, Kind.MINUS)
_BEGINNINGS = (*_NEGATIONS, Kind.OPEN, Kind.WORD, Kind.STRING)
_ALMOST_KEYWORDS = ("and", "or", "not")


def parse(text: str) -> Node:
    """Parses a filter. Raises BAD_FILTER with the column, what was found there and what was expected."""
    return _Parser(text).filter()


def text_of(node: Node) -> str:
    """The filter in its canonical form: printable, with single spaces. `parse` gives the same tree again.

    It may be longer than what was typed, and then too long for `parse`.
    """
    match node:
        case And(items):
            return " AND ".join(_grouped(item, And) for item in items)
        case Or(items):
            return " OR ".join(_grouped(item, And, Or) for item in items)
        case Not(item):
            return f"NOT {_grouped(item, And, Or, Not)}"
        case Comparison(name, comparator, value):
            return f"{name}{':' if comparator is Comparator.HAS else f' {comparator} '}{value}"
        case Word(value):
            return str(value)


def _grouped(node: Node, *kinds: type[Node]) -> str:
    return f"({text_of(node)})" if isinstance(node, kinds) else text_of(node)


class _Parser:
    """One token ahead; each method parses the rule of its name."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = next(self._tokens)
        self._depth = 0
        self._conditions = 0

    def filter(self) -> Node:
        if self._at(Kind.END):
            return And(())
        node = self._sequence()
        if not self._at(Kind.END):
            raise self._unexpected("AND, OR or the end")
        return node

    def _sequence(self) -> Node:
        items = [self._choice()]
        while self._at(Kind.AND, *_BEGINNINGS):
            if self._at(Kind.AND):
                self._take()
            items.append(self._choice())
        return items[0] if len(items) == 1 else And(tuple(items))

    def _choice(self) -> Node:
        items = [self._term()]
        while self._at(Kind.OR):
            self._take()
            items.append(self._term())
        return items[0] if len(items) == 1 else Or(tuple(items))

    def _term(self) -> Node:
        if not self._at(*_NEGATIONS):
            return self._simple()
        negation = self._take()
        if negation.kind is Kind.MINUS and self._next.column > negation.column + 1:
            raise refusal(negation.column, '"-" stands right before what it negates, without a space')
        return Not(self._simple())

    def _simple(self) -> Node:
        if self._at(Kind.OPEN):
            return self._group()
        if self._at(Kind.WORD, Kind.STRING):
            return self._condition()
        raise self._unexpected("a condition")

    def _group(self) -> Node:
        opening = self._take()
        self._depth = self._counted(self._depth, MAX_DEPTH, opening, "parentheses within each other")
        node = self._sequence()
        if not self._at(Kind.CLOSE):
            raise self._unexpected(f'")" for the "(" at column {opening.column}')
        self._take()
        self._depth -= 1
        return node

    def _condition(self) -> Node:
        first = self._take()
        self._conditions = self._counted(self._conditions, MAX_CONDITIONS, first, "conditions")
        if not self._at(Kind.COMPARATOR):
            return Word(self._searched(first))
        if first.kind is Kind.STRING:
            raise refusal(first.column, f"a comparison begins with a field, without quotes; found {first}")
        comparator = self._take()
        if not self._at(Kind.WORD, Kind.STRING):
            raise self._unexpected(f'a value after "{comparator.text}"')
        return Comparison(first.text, Comparator(comparator.text), value_of(self._take()), first.column)

    def _searched(self, word: Token) -> Value:
        if word.kind is Kind.WORD and word.text.lower() in _ALMOST_KEYWORDS:
            raise refusal(word.column, f'write {word.text.upper()} in capitals; to search for it, write "{word.text}"')
        return value_of(word)

    def _counted(self, count: int, limit: int, at: Token, what: str) -> int:
        if count == limit:
            raise refusal(at.column, f"there are more than {limit} {what}")
        return count + 1

    def _at(self, *kinds: Kind) -> bool:
        return self._next.kind in kinds

    def _take(self) -> Token:
        taken, self._next = self._next, next(self._tokens)
        return taken

    def _unexpected(self, expected: str) -> HandrailError:
        found = self._next
        keyword = self._at(Kind.AND, Kind.OR, Kind.NOT)
        hint = f"; to search for the word, put it in quotes: {shown(found.text)}" if keyword else ""
        return refusal(found.column, f"expected {expected}, found {found}{hint}")
