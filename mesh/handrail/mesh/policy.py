"""Policies: the conditions of gates and rules, and the counts of joins, in CEL.

They are typed against the contracts when they are parsed, and fail closed when they are evaluated: what is not plainly
true or false raises `PolicyError`, and whoever asked has to ask a person.

    event                                  the message at hand (gates and rules)
    flow.latest['payments.v1.RefundPaid']  the newest fact of that type; an error where there is none (rules)
    flow.counts['payments.v1.RefundPaid']  how many facts of that type there are, 0 where there is none (rules)
    flow.elapsed                           the time from the flow's first event to the event at hand (rules)
    latest['payments.v1.RefundPaid']       as flow.latest (counts of joins)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.mesh.expression import ELAPSED, EVENT, Expression, Value, cut


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFacts:
    """What a rule may know of the flow: counts and newest facts by message type, and the time elapsed."""

    counts: Mapping[str, int]
    latest: Mapping[str, Message]
    elapsed: timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """A condition, compiled for each message type that it may be asked about."""

    text: str
    _expressions: Mapping[str, Expression]

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        event_types: Collection[str],
        contracts: Contracts,
        fact_types: Collection[str] | None = None,
    ) -> Policy:
        """Compile a condition for each of the types that `event` may have.

        `fact_types` are the types that `flow.counts` and `flow.latest` may name; where it is None there is no `flow`.
        Raises `PolicyError` with the place where the condition does not type-check for one of the types, or is no bool.
        """
        tables = () if fact_types is None else ("flow.counts", "flow.latest")
        expressions = {}
        for event_type in event_types:
            expression = Expression.compile(
                text, contracts=contracts, event_type=event_type, tables=tables, types=fact_types or ()
            )
            if expression.type != "BOOL":
                raise PolicyError(f"«{cut(text)}» is of type {expression.type}; a condition has to be of type BOOL")
            expressions[event_type] = expression
        return cls(text, expressions)

    def reads(self, event_type: str) -> Iterator[tuple[str, str]]:
        """What the condition looks up where `event` is of this type: table (`flow.counts`, `flow.latest`) and type."""
        expression = self._expressions.get(event_type)
        return ((fact.table, fact.message_type) for fact in (expression.facts if expression else ()))

    def allows(self, *, event: Message | None, flow: FlowFacts | None = None) -> bool:
        """Whether the condition holds.

        Raises `PolicyError` for all that is not plainly true or false: an error of evaluation, an event of a type that
        the condition was not parsed for, a fact that is not there.
        """
        expression = None if event is None else self._expressions.get(event.DESCRIPTOR.full_name)
        if event is None or expression is None:
            what = "nothing" if event is None else event.DESCRIPTOR.full_name
            raise PolicyError(f"«{cut(self.text)}» was asked about {what}, for which it is not meant")
        values: dict[str, Value] = {EVENT: event}
        if flow is not None:
            values[ELAPSED] = flow.elapsed
            for fact in expression.facts:
                if fact.table == "flow.counts":
                    values[fact.variable] = flow.counts.get(fact.message_type, 0)
                elif fact.message_type in flow.latest:
                    values[fact.variable] = flow.latest[fact.message_type]
        answer = expression.evaluate(values)
        if answer is True or answer is False:
            return answer
        raise PolicyError(f"«{cut(self.text)}» gave {answer!r}, which is neither true nor false")


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages of one type a join waits for: a number, or an expression over the newest facts."""

    text: str
    fixed: int | None
    """The number, where it does not depend on the flow."""
    _expression: Expression | None

    @classmethod
    def parse(cls, text: str, *, latest_types: Collection[str], contracts: Contracts) -> Count:
        """Compile a count; an empty text is 1.

        `latest_types` are the types that `latest` may name. Raises `PolicyError` where it is no whole number.
        """
        number = text.strip() or "1"
        if number.isascii() and number.isdecimal() and len(number) < 10:
            return cls(text, int(number), None)
        expression = Expression.compile(
            text, contracts=contracts, event_type=None, tables=("latest",), types=latest_types
        )
        if expression.type not in ("INT", "UINT"):
            raise PolicyError(f"«{cut(text)}» is of type {expression.type}; a count has to be of type INT or UINT")
        return cls(text, None, expression)

    @property
    def latest_types(self) -> frozenset[str]:
        """The message types of which there has to be a fact before the number can be told."""
        return frozenset(fact.message_type for fact in self._expression.facts) if self._expression else frozenset()

    def evaluate(self, latest: Mapping[str, Message]) -> int:
        """The number, given the newest fact of each type; `PolicyError` where it can't be told, or is negative."""
        if self._expression is None:
            return self.fixed or 0
        values = {
            fact.variable: latest[fact.message_type] for fact in self._expression.facts if fact.message_type in latest
        }
        answer = self._expression.evaluate(values)
        if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
            raise PolicyError(f"«{cut(self.text)}» gave {answer!r}, which is no count")
        return answer
