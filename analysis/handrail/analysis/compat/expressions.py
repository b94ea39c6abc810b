"""The expressions of a template, and whether each compiles with given contracts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from handrail.mesh.conditions.policy import Count
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.terms import Terms, fact_types
from handrail.v1 import template_pb2 as pb


class Condition(NamedTuple):
    """An expression in a template, and how to compile it."""

    kind: str
    name: str
    text: str
    compile: Callable[[Contracts], object]


def conditions(proto: pb.FlowTemplate) -> Iterator[Condition]:
    """Yields the expressions of a template: of gates, rules and join counts."""
    facts = fact_types(proto)
    for gate in proto.gates:
        if gate.when.strip():
            yield _condition("gate", gate.name, gate.when, [gate.on], proto)
    for rule in proto.rules:
        yield _condition("rule", rule.name, rule.when, list(rule.on), proto)
    for step in proto.steps:
        for join in step.after_all:
            if join.count and not join.count.isdecimal():
                yield _count(step.name, join.count, facts)


def _condition(kind: str, name: str, text: str, types: Sequence[str], proto: pb.FlowTemplate) -> Condition:
    def compile_(contracts: Contracts) -> object:
        return Terms.of(proto, contracts).parse(text, types)

    return Condition(kind, name, text, compile_)


def _count(name: str, text: str, facts: Collection[str]) -> Condition:
    def compile_(contracts: Contracts) -> object:
        return Count.parse(text, latest_types=facts, contracts=contracts)

    return Condition("join of step", name, text, compile_)


def problem(condition: Condition, contracts: Contracts) -> str:
    """Says why a condition does not compile with these contracts; empty if it does."""
    try:
        condition.compile(contracts)
    except HandrailError as error:
        return error.text
    return ""
