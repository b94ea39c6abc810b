"""Policies: the conditions of gates and rules, and the counts of joins, in CEL.

They are type-checked against the contracts when parsed, and fail closed when evaluated: any result other than true or
false raises `PolicyError`, and the caller has to ask a person.

    event                                     the message at hand
    flow.first                                the flow's first event
    flow.latest['payments.v1.RefundPaid']     the newest fact of that type; an error without such a fact
    flow.counts['payments.v1.RefundPaid']     the number of facts of that type, possibly 0
    flow.facts['payments.v1.RefundPaid']      all of them, in stream order; an error beyond 300
    flow.proposals['payments.v1.RefundPaid']  the earlier proposals of that type that are neither facts nor refused
    flow.elapsed                              the time from the flow's first event to the event at hand
    latest['payments.v1.RefundPaid']          like flow.latest (counts of joins)

A rule is evaluated at a fact, and the facts include it. A gate is evaluated at a proposal, which is not a fact yet.
`list.sum()` extends plain CEL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from handrail.mesh.conditions.cost import Spent, TooDear, Value
from handrail.mesh.conditions.expression import Expression
from handrail.mesh.conditions.finite import NumberRead
from handrail.mesh.conditions.largest import largest
from handrail.mesh.conditions.look_ups import COUNTS, ELAPSED, EVENT, FACTS, FIRST, FLOW_TABLES, LATEST
from handrail.mesh.conditions.sizes import Many, Size
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.mesh.printable import cut

MOST_FACTS = 300
"""The maximum number of facts of one type that a condition reads. The engine takes 6 microseconds for each, and a
condition may be evaluated once per fact. With more facts the condition can't be evaluated."""


class FlowView(Protocol):
    """The flow as a condition may read it, at the position of the current event."""

    @property
    def first(self) -> Message:
        """The first event."""

    @property
    def elapsed(self) -> timedelta:
        """The time from the first event to the current one."""

    def count(self, message_type: str) -> int:
        """The number of facts of a type."""

    def latest(self, message_type: str) -> Message | None:
        """The newest fact of a type, or None."""

    def facts(self, message_type: str) -> Sequence[Message]:
        """All facts of a type, in stream order."""

    def proposals(self, message_type: str) -> Sequence[Message]:
        """The undecided proposals of a type, in stream order, without the current event."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A condition, compiled for each message type that its `event` may have."""

    text: str
    _expressions: Mapping[tuple[str, str], Expression]

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        event_types: Collection[str],
        contracts: Contracts,
        fact_types: Collection[str] = (),
        first_types: Collection[str] = (),
    ) -> Policy:
        """Compiles a condition for each of the types that `event` may have.

        `fact_types` are the types that `flow.latest` and the like may name, `first_types` those that `flow.first` may
        have. Raises `PolicyError` with the position if the condition does not type-check for one of the types, or is
        not a bool.
        """
        expressions: dict[tuple[str, str], Expression] = {}
        for event_type in event_types:
            for first_type in first_types or ("",):
                expression = Expression.compile(
                    text,
                    contracts=contracts,
                    event_type=event_type,
                    first_type=first_type,
                    tables=FLOW_TABLES,
                    types=fact_types,
                )
                if expression.type != "BOOL":
                    raise PolicyError(f'"{cut(text)}" is of type {expression.type}; a condition must be of type BOOL')
                if FIRST not in expression.names:
                    expressions[event_type, ""] = expression
                    break
                expressions[event_type, first_type] = expression
        return cls(text, expressions)

    def reads(self, event_type: str) -> Iterator[tuple[str, str]]:
        """The look-ups of the condition for an `event` of this type: table (`flow.counts`, …) and message type."""
        found = (expression.facts for (asked, _), expression in self._expressions.items() if asked == event_type)
        return ((fact.table, fact.message_type) for fact in next(found, ()))

    @property
    def reads_first(self) -> bool:
        """Whether it reads the flow's first event."""
        return any(FIRST in expression.names for expression in self._expressions.values())

    @property
    def numbers(self) -> Iterator[NumberRead]:
        """The fields with doubles that it reads."""
        return iter(dict.fromkeys(each for expression in self._expressions.values() for each in expression.numbers))

    @property
    def problem(self) -> str:
        """Why it can't be evaluated although it type-checks; empty if it can."""
        return next((expression.problem for expression in self._expressions.values() if expression.problem), "")

    def may_be_too_dear(self, contracts: Contracts) -> bool:
        """Whether messages that keep to their contracts can make it cost more than is allowed (`cost`)."""
        return any(
            _is_too_dear(expression, event_type, first_type, contracts)
            for (event_type, first_type), expression in self._expressions.items()
        )

    def allows(self, *, event: Message | None, flow: FlowView) -> bool:
        """Whether the condition holds.

        Raises `PolicyError` if the result is neither true nor false: after an evaluation error, a number that is not
        finite, an event of a type that the condition was not parsed for, or a missing fact.
        """
        expression = None if event is None else self._expression(event.DESCRIPTOR.full_name, flow)
        if event is None or expression is None:
            what = "nothing" if event is None else event.DESCRIPTOR.full_name
            raise PolicyError(f'"{cut(self.text)}" does not apply to {what}')
        values: dict[str, Value] = {EVENT: event}
        if ELAPSED in expression.names:
            values[ELAPSED] = flow.elapsed
        if FIRST in expression.names:
            values[FIRST] = flow.first
        for fact in expression.facts:
            value = _look_up(flow, fact.table, fact.message_type)
            if value is not None:
                values[fact.variable] = value
        answer = expression.evaluate(values)
        if answer is True or answer is False:
            return answer
        raise PolicyError(f'"{cut(self.text)}" gave {answer!r}, which is neither true nor false')

    def _expression(self, event_type: str, flow: FlowView) -> Expression | None:
        plain = self._expressions.get((event_type, ""))
        if plain is not None or not self.reads_first:
            return plain
        return self._expressions.get((event_type, flow.first.DESCRIPTOR.full_name))


def _is_too_dear(expression: Expression, event_type: str, first_type: str, contracts: Contracts) -> bool:
    def size(message_type: str) -> Size:
        kind = cast("Descriptor", contracts.message_class(message_type).DESCRIPTOR)
        return largest(kind)

    sizes = {EVENT: size(event_type)} | ({FIRST: size(first_type)} if first_type else {})
    for fact in expression.facts:
        if fact.table == COUNTS:
            continue
        one = size(fact.message_type)
        sizes[fact.variable] = one if fact.table == LATEST else Many(MOST_FACTS, one)
    try:
        if expression.cost is not None:
            expression.cost.charge(Spent(), {name: partial(_given, size) for name, size in sizes.items()})
    except TooDear:
        return True
    return False


def _given(size: Size) -> Size:
    return size


def _look_up(flow: FlowView, table: str, message_type: str) -> Value | None:
    if table == COUNTS:
        return flow.count(message_type)
    if table == LATEST:
        return flow.latest(message_type)
    found = flow.facts(message_type) if table == FACTS else flow.proposals(message_type)
    if len(found) > MOST_FACTS:
        raise PolicyError(f"there are {len(found):,} {message_type}; a condition reads {MOST_FACTS} at most")
    return found


@dataclass(frozen=True, slots=True)
class Count:
    """The number of messages of one type that a join waits for: fixed, or an expression over the newest facts."""

    text: str
    fixed: int | None
    """The number, if it does not depend on the flow."""
    _expression: Expression | None

    @classmethod
    def parse(cls, text: str, *, latest_types: Collection[str], contracts: Contracts) -> Count:
        """Compiles a count; an empty text means 1.

        `latest_types` are the types that `latest` may name. Raises `PolicyError` if the text is not a whole number.
        """
        number = text.strip() or "1"
        if number.isascii() and number.isdecimal() and len(number) < 10:
            return cls(text, int(number), None)
        expression = Expression.compile(
            text, contracts=contracts, event_type=None, tables=("latest",), types=latest_types
        )
        if expression.type not in ("INT", "UINT"):
            raise PolicyError(f'"{cut(text)}" is of type {expression.type}; a count must be of type INT or UINT')
        return cls(text, None, expression)

    @property
    def latest_types(self) -> frozenset[str]:
        """Message types that must have at least one fact before the count can be evaluated."""
        return frozenset(fact.message_type for fact in self._expression.facts) if self._expression else frozenset()

    def evaluate(self, latest: Mapping[str, Message]) -> int:
        """The number, given the newest fact of each type. Raises `PolicyError` if it is unknown or negative."""
        if self._expression is None:
            return self.fixed or 0
        values = {
            fact.variable: latest[fact.message_type] for fact in self._expression.facts if fact.message_type in latest
        }
        answer = self._expression.evaluate(values)
        if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
            raise PolicyError(f'"{cut(self.text)}" gave {answer!r}, which is not a count')
        return answer
