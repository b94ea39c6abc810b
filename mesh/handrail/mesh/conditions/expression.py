"""CEL expressions over messages, compiled and evaluated by the engine.

The engine reports an evaluation error as a value, and in Python any non-empty text is true. So an answer is accepted
only if it has exactly the type of the expression; everything else raises `PolicyError`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from cel_expr_python import cel
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError

from handrail.mesh.conditions import environments
from handrail.mesh.conditions.cost import Cost, TooDear, Value
from handrail.mesh.conditions.finite import NumberRead, guard, numbers_read
from handrail.mesh.conditions.look_ups import (
    COUNTS,
    ELAPSED,
    EVENT,
    FACTS,
    FIRST,
    LATEST,
    PROPOSALS,
    Fact,
    variable,
    with_typed_names,
    with_variables,
)
from handrail.mesh.conditions.syntax import Tree
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.mesh.printable import cut

MAX_LENGTH = 10_000
"""The longest expression, in characters. The engine itself limits nesting (32); `cost` limits what it may take."""

_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: ")


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
        event_and_first = {EVENT: event_type, FIRST: first_type}
        numbered = tuple(sorted({*types, *filter(None, event_and_first.values())}))
        numbers = {name: number for number, name in enumerate(numbered)}
        source, facts = with_variables(text, tables, types, numbers)
        named = {name: numbers[type_name] for name, type_name in event_and_first.items() if type_name}
        typed = with_typed_names(text, source, named.get(EVENT), named.get(FIRST))
        renamed = {variable(name, number): name for name, number in named.items()}
        for type_name in filter(None, event_and_first.values()):
            contracts.message_class(type_name)  # raises for unknown types, before the engine does
        environment = environments.shared(contracts, numbered, LATEST in tables)
        compiled = None
        if typed is not None:
            with suppress(RuntimeError, TypeError, ValueError):  # told below, in terms of what was written
                compiled = environment.compile(typed)
        if compiled is None:
            variables = [(fact.variable, fact.table, fact.message_type) for fact in facts]
            variables += [(name, name, type_name) for name, type_name in event_and_first.items() if type_name]
            if LATEST in tables:
                variables.append((ELAPSED, ELAPSED, ""))
            environment, renamed = environments.own(contracts, tuple(variables)), {}
            try:
                compiled = environment.compile(source)
            except (RuntimeError, TypeError, ValueError) as error:
                raise PolicyError(f'"{cut(text)}": {_explain(str(error), tables)}') from None
        value_type, problem = compiled.return_type().name(), ""
        numbers_of, names, cost = tuple[NumberRead, ...](), frozenset[str](), None
        try:
            tree = Tree(compiled.serialize())
            is_changed = tree.rename(renamed)
            numbers_of, names = tuple(dict.fromkeys(numbers_read(tree))), frozenset(tree.names.values())
            if guard(tree) or is_changed:
                compiled = environment.deserialize(tree.serialized())
            cost = Cost(
                tree, _kinds(contracts, facts, {name: each for name, each in event_and_first.items() if name in names})
            )
        except (DecodeError, EncodeError, RuntimeError):  # the binary form of a tree has at most 100 levels
            problem = "it is nested too deeply for its numbers to be checked"
        return cls(text, facts, value_type, numbers_of, names, problem, compiled, cost)

    def evaluate(self, values: Mapping[str, Value]) -> object:
        """Evaluates the expression with these variables. Returns a Python value of the expression's type.

        Raises `PolicyError` if the evaluation would cost too much (`cost`), fails, reads or computes a number that is
        not finite, or returns a value of another type.
        """
        if self.problem or self.cost is None:
            raise PolicyError(f'"{cut(self.text)}" can\'t be evaluated: {self.problem}')
        try:
            self.cost.require(values)
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


def _kinds(
    contracts: Contracts, facts: Iterable[Fact], named: Mapping[str, str | None]
) -> dict[str, tuple[Descriptor, bool]]:
    """The types of the variables that are messages, and whether they are lists of them."""
    types = [(name, type_name, False) for name, type_name in named.items() if type_name]
    types += [
        (fact.variable, fact.message_type, fact.table in (FACTS, PROPOSALS)) for fact in facts if fact.table != COUNTS
    ]
    return {
        name: (cast("Descriptor", contracts.message_class(type_name).DESCRIPTOR), is_list)
        for name, type_name, is_list in types
    }


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
