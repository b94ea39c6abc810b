"""CEL expressions over messages: the only module that depends on the CEL engine.

The engine reports an evaluation error as a value, and in Python any non-empty text is true. So an answer is accepted
only if it has exactly the type of the expression; everything else raises `PolicyError`.

Facts of a flow are looked up by message type, `flow.latest['payments.v1.RefundPaid'].amount`, and typed by their own
contracts: before compilation each look-up is replaced by a variable of its type. The variable is padded to the length
of the look-up, so that the positions in errors stay correct.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cel_expr_python import cel
from google.protobuf.message import DecodeError, EncodeError

from handrail.mesh.conditions.cost import Cost, TooDear, Value
from handrail.mesh.conditions.finite import CHECK, SUM, NumberRead, check, guard, numbers_read
from handrail.mesh.conditions.syntax import Tree
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.mesh.printable import cut
from handrail.v1.failure_pb2 import StepCompleted

MAX_LENGTH = 10_000
"""The longest expression, in characters. The engine itself limits nesting (32); `cost` limits what it may take."""

EVENT = "event"
"""The name of the message at hand."""

ELAPSED = "flow.elapsed"
"""The name of the time since the flow's first event."""

FIRST = "flow.first"
"""The name of the flow's first event."""

COUNTS, LATEST, FACTS, PROPOSALS = "flow.counts", "flow.latest", "flow.facts", "flow.proposals"
"""The tables of a flow, which are looked up by message type."""

FLOW_TABLES = (COUNTS, LATEST, FACTS, PROPOSALS)

_MANY = 300
"""With more known names than this, no similar name is searched: each comparison takes a tenth of a millisecond."""

_LEXEME = re.compile(
    r"""
      [bBrR]{0,2} (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | //[^\n]*
    | (?P<table> (?:flow\s*\.\s*)? (?:latest|counts|facts|proposals))
      \s* \[ \s* (?P<quote>["'])(?P<type>[^"'\\\n]*)(?P=quote) \s* \]
    | \.\s*[A-Za-z_]\w* | [A-Za-z_]\w*
    """,
    re.VERBOSE | re.DOTALL,
)
"""The tokens to tell apart when searching look-ups: strings, comments, look-ups, names after a dot, other names. The
engine refuses a raw string with a backslash before a quote, so raw strings end like all others."""

_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: ")


class Fact(NamedTuple):
    """A look-up in an expression: its table (`flow.latest`, `flow.counts`, `latest`, …), message type and variable."""

    table: str
    message_type: str
    variable: str


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `type` is the type of its value: BOOL, INT, UINT, STRING, …, or the full name of a message. `numbers` are the
    fields of doubles that it reads, `names` its variables. An expression with a `problem` type-checks but can't be
    evaluated, and has no `cost`.
    """

    text: str
    facts: tuple[Fact, ...]
    type: str
    numbers: tuple[NumberRead, ...]
    names: frozenset[str]
    problem: str
    _compiled: cel.Expression
    cost: Cost | None

    @classmethod
    def compile(
        cls,
        text: str,
        *,
        contracts: Contracts,
        event_type: str | None,
        tables: Collection[str],
        types: Collection[str],
        first_type: str | None = None,
    ) -> Expression:
        """Compiles an expression. `event` has the type `event_type`, `flow.first` the type `first_type`, and look-ups
        in the `tables` may name the `types`.

        Raises `PolicyError` with line and column if the text is too long, does not parse or type-check, or looks up a
        type that is not a fact of the flow.
        """
        if len(text) > MAX_LENGTH:
            raise PolicyError(f"the expression has {len(text):,} characters; at most {MAX_LENGTH:,} are accepted")
        source, facts = _facts(text, tables, types)
        variables = [(fact.variable, _type_of(fact)) for fact in facts]
        variables += [(name, type_name) for name, type_name in ((EVENT, event_type), (FIRST, first_type)) if type_name]
        if LATEST in tables:
            variables.append((ELAPSED, _DURATION))
        environment = _environment(contracts, tuple(variables))
        try:
            compiled = environment.compile(source)
        except (RuntimeError, TypeError, ValueError) as error:
            raise PolicyError(f'"{cut(text)}": {_explain(str(error), tables)}') from None
        value_type, problem = compiled.return_type().name(), ""
        numbers, names, cost = tuple[NumberRead, ...](), frozenset[str](), None
        try:
            tree = Tree(compiled.serialize())
            numbers, names = tuple(dict.fromkeys(numbers_read(tree))), frozenset(tree.names.values())
            if guard(tree):
                compiled = environment.deserialize(tree.serialized())
            cost = Cost(tree)
        except (DecodeError, EncodeError, RuntimeError):  # the binary form of a tree has at most 100 levels
            problem = "it is nested too deeply for its numbers to be checked"
        return cls(text, facts, value_type, numbers, names, problem, compiled, cost)

    def evaluate(self, values: Mapping[str, Value]) -> object:
        """Evaluates the expression with these variables. Returns a Python value of the expression's type.

        Raises `PolicyError` if the evaluation would cost too much (`cost`), fails, reads or computes a number that is
        not finite, or returns a value of another type.
        """
        if self.problem or self.cost is None:
            raise PolicyError(f'"{cut(self.text)}" can\'t be evaluated: {self.problem}')
        try:
            self.cost.of(values)
        except TooDear as error:
            raise PolicyError(f'"{cut(self.text)}" can\'t be evaluated: {error.text}') from None
        try:
            answer = self._compiled.eval(data=values)
            value = answer.value()
        except Exception as error:  # fail closed, whatever the engine raises
            raise PolicyError(f'"{cut(self.text)}" can\'t be evaluated: {error}') from error
        if answer.type().name() != self.type:
            raise PolicyError(f'"{cut(self.text)}" can\'t be evaluated: {self._restore(str(value))}')
        return value

    def _restore(self, text: str) -> str:
        """Replaces the variables in an error of the engine with their look-ups."""
        for fact in self.facts:
            missing = f'No value with name "{fact.variable}" found in Activation'
            text = text.replace(missing, f"the flow has no {fact.message_type} yet")
        return cut(_STATUS.sub("", text), 500)


def nearest(name: str, known: Collection[str]) -> str:
    """A hint, to append to an error, at the known name most similar to an unknown one; empty if none is similar."""
    if len(known) > _MANY:
        return ""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _facts(text: str, tables: Collection[str], types: Collection[str]) -> tuple[str, tuple[Fact, ...]]:
    facts: dict[tuple[str, str], Fact] = {}

    def replace(match: re.Match[str]) -> str:
        table = "".join((match["table"] or "").split())
        if table not in tables:
            return match[0]
        message_type = match["type"]
        if message_type not in types:
            place = _position(text, match.start())
            raise PolicyError(f'{place}: the flow has no fact "{cut(message_type)}"{nearest(message_type, types)}')
        fact = facts.setdefault((table, message_type), Fact(table, message_type, f"_{len(facts)}"))
        return fact.variable + re.sub(r"[^\n]", " ", match[0][len(fact.variable) :])

    return _LEXEME.sub(replace, text), tuple(facts.values())


def _position(text: str, offset: int) -> str:
    line_start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - line_start + 1}"


_DURATION = "google.protobuf.Duration"
_LIST = "list "


def _type_of(fact: Fact) -> str:
    """The type of a look-up in text form: a message, a list of messages, or a number (empty)."""
    if fact.table == COUNTS:
        return ""
    return _LIST + fact.message_type if fact.table in (FACTS, PROPOSALS) else fact.message_type


@lru_cache(maxsize=64)
def _environment(contracts: Contracts, variables: tuple[tuple[str, str], ...]) -> cel.Env:
    """The engine's environment. It takes milliseconds to build, so expressions with the same names share one."""
    types = {}
    for name, spelled in variables:
        message_type = spelled.removeprefix(_LIST)
        if not message_type:
            types[name] = cel.Type.INT
            continue
        if message_type == _DURATION:
            types[name] = cel.Type.DURATION
            continue
        contracts.message_class(message_type)  # raises for unknown types, before the engine does
        types[name] = cel.Type.List(cel.Type(message_type)) if spelled.startswith(_LIST) else cel.Type(message_type)
    return cel.NewEnv(descriptor_pool=contracts.pool, variables=types, functions=_functions())


_A_MESSAGE = cel.Type(StepCompleted.DESCRIPTOR.full_name)
"""Represents messages of any type in the look-up of functions."""


def _functions() -> list[cel.FunctionDecl]:
    """The check of numbers, for each kind of value; and the overloads of `sum`, which is rewritten as a loop."""
    kinds = [
        cel.Type.BOOL, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE, cel.Type.STRING, cel.Type.BYTES, cel.Type.NULL,
        cel.Type.DURATION, cel.Type.TIMESTAMP, cel.Type.TYPE, cel.Type.LIST, cel.Type.MAP, _A_MESSAGE,
    ]  # fmt: skip
    checks = [
        cel.Overload(f"{CHECK}_{number}", return_type=cel.Type.BOOL, parameters=[kind, cel.Type.STRING], impl=check)
        for number, kind in enumerate(kinds)
    ]
    # The engine wants one implementation per name, and can't tell two list types apart.
    sums = [cel.Overload(f"{SUM}_int", cel.Type.INT, [cel.Type.List(cel.Type.INT)], True, _not_evaluated)]
    for kind in (cel.Type.UINT, cel.Type.DOUBLE, cel.Type.DURATION):
        sums.append(cel.Overload(f"{SUM}_{kind.name()}", kind, [cel.Type.List(kind)], True))
    return [cel.FunctionDecl(CHECK, checks), cel.FunctionDecl(SUM, sums)]


def _not_evaluated(_: object) -> int:
    raise AssertionError("sums have been rewritten as loops")


def _explain(error: str, tables: Collection[str]) -> str:
    found = _ERROR.findall(error)
    if not found:
        return cut(error, 500)
    parts = []
    for line, column, text in found[:3]:
        place = f"line {line}, column {column}: " if int(line) > 0 else ""
        parts.append(place + cut(text.replace(" (in container '')", ""), 200))
    hint = ""
    if tables and re.search(r"undeclared reference to '(flow|latest)", error):
        hint = f"; look up a fact with a literal type, as in {sorted(tables)[-1]}['payments.v1.RefundPaid']"
    return "; ".join(parts) + hint
