"""Whom a change of a contract hits: which templates, and what agents, gates and rules have to do with it. Pure.

A change of a message hits whatever holds the message, and a change of an enum whatever holds a message that has it. A
condition reads a field if it does not compile without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from handrail.analysis.check.part_checks import named_types
from handrail.analysis.compat.change import Change
from handrail.analysis.compat.consumers import Consumer, Use, uses
from handrail.analysis.compat.contract_set import ContractSet
from handrail.mesh.conditions.policy import Count
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.specs import Terms, fact_types
from handrail.v1 import template_pb2 as pb

ENVELOPE_FILES = frozenset({"handrail/v1/event.proto", "handrail/v1/decision.proto", "handrail/v1/failure.proto"})
"""What every agent and every flow speaks, whatever its template."""


@dataclass(frozen=True, slots=True)
class Known:
    """A template and where it was found: a file, a file of a git ref, or the coordinator."""

    proto: pb.FlowTemplate
    origin: str


class Part(NamedTuple):
    """What an agent does with a message, in which step."""

    agent: str
    step: str
    message: str


class Reading(NamedTuple):
    """A gate, rule, join or requester field that reads what changed. `problem` is why it no longer compiles, empty
    where it does."""

    kind: str
    name: str
    text: str
    problem: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One version of a template that speaks a changed message, and who does what with it.

    `undoes` are agents that get the message to undo its effect, `reports` those that say with it that they have.
    """

    template: Known
    messages: tuple[str, ...]
    starts: tuple[Part, ...]
    emits: tuple[Part, ...]
    waits: tuple[Part, ...]
    undoes: tuple[Part, ...]
    reports: tuple[Part, ...]
    gates: tuple[str, ...]
    readings: tuple[Reading, ...]

    @property
    def version(self) -> tuple[str, int]:
        """The flow type and the version."""
        return self.template.proto.name, self.template.proto.version

    @property
    def agents(self) -> tuple[str, ...]:
        """Every agent that is hit, by name."""
        parts = (*self.starts, *self.emits, *self.waits, *self.undoes, *self.reports)
        return tuple(sorted({part.agent for part in parts if part.agent}))


@dataclass(frozen=True, slots=True)
class Impact:
    """A change and whom it hits. `messages` are those that have what changed in them, `calls` the RPCs that carry them;
    `consumers` are programs that say they depend on it; `everybody` is set for Handrail's own envelope."""

    change: Change
    messages: tuple[str, ...]
    calls: tuple[str, ...]
    hits: tuple[Hit, ...]
    everybody: bool
    consumers: tuple[Use, ...] = ()

    @property
    def hits_anybody(self) -> bool:
        """Whether an agent, a template, a client of an API or a consumer is hit."""
        return bool(self.hits or self.calls or self.consumers or self.everybody)

    def plus(self, other: Impact) -> Impact:
        """The same change with what another baseline says of it."""
        return Impact(
            change=self.change,
            messages=tuple(sorted({*self.messages, *other.messages})),
            calls=tuple(dict.fromkeys((*self.calls, *other.calls))),
            hits=(*self.hits, *other.hits),
            everybody=self.everybody or other.everybody,
            consumers=tuple(dict.fromkeys((*self.consumers, *other.consumers))),
        )


def impacts(
    changes: Iterable[Change],
    before: ContractSet,
    after: ContractSet,
    templates: Sequence[Known],
    consumers: Sequence[Consumer] = (),
) -> tuple[Impact, ...]:
    """Whom each change hits, in the order of the changes."""
    judge = _Judge(before, after, consumers)
    return tuple(judge.impact(change, templates) for change in changes)


class _Judge:
    def __init__(self, before: ContractSet, after: ContractSet, consumers: Sequence[Consumer]) -> None:
        self.before = before
        self.after = after
        self.consumers = consumers
        self.without = lru_cache(maxsize=32)(lambda definition, member: before.without(definition, member).contracts)

    def impact(self, change: Change, templates: Sequence[Known]) -> Impact:
        messages = self._messages(change)
        calls = self._calls(change, messages)
        found = (self._hit(change, messages, known) for known in templates)
        return Impact(
            change=change,
            messages=tuple(sorted(messages)),
            calls=calls,
            hits=tuple(hit for hit in found if hit is not None),
            everybody=change.file in ENVELOPE_FILES,
            consumers=tuple(uses(self.consumers, {*messages, change.definition}, calls)),
        )

    def _messages(self, change: Change) -> frozenset[str]:
        """The messages that have what changed somewhere in them."""
        definitions = {change.definition}
        if change.code == "FILE_CHANGED" and change.level.is_breaking:
            definitions = {name for name, each in self.before.messages.items() if each.file.name == change.file}
        holding = (side.containing(each) for side in (self.before, self.after) for each in definitions)
        return frozenset[str]().union(*holding)

    def _calls(self, change: Change, messages: frozenset[str]) -> tuple[str, ...]:
        if change.definition in self.before.services:
            service = self.before.services[change.definition].proto
            methods = [change.member] if change.member else [method.name for method in service.method]
            return tuple(f"{change.definition}.{method}" for method in methods)
        return self.before.calls_with(messages)

    def _hit(self, change: Change, messages: frozenset[str], known: Known) -> Hit | None:
        proto = known.proto
        undoable = [step for step in proto.steps if step.HasField("undo")]
        hit = Hit(
            template=known,
            messages=tuple(sorted(messages & {named.full_name for named in named_types(proto)})),
            starts=tuple(
                Part(agent, "", each)
                for each in proto.starts_with
                for agent in (proto.started_by or [""])
                if each in messages
            ),
            emits=_parts(proto.steps, lambda step: step.emits, messages),
            waits=_parts(proto.steps, lambda step: [*step.after, *(join.type for join in step.after_all)], messages),
            undoes=_parts(undoable, lambda step: step.emits, messages),
            reports=_parts(undoable, lambda step: step.undo.emits, messages),
            gates=tuple(gate.name for gate in proto.gates if gate.on in messages),
            readings=tuple(self._readings(change, proto)) if change.level else (),
        )
        return hit if hit.messages else None

    def _readings(self, change: Change, proto: pb.FlowTemplate) -> Iterator[Reading]:
        for condition in _conditions(proto):
            if _problem(condition, self.before.contracts):
                continue  # it was written for the new contracts
            now = _problem(condition, self.after.contracts)
            if change.member:
                reads = bool(_problem(condition, self.without(change.definition, change.member)))
            else:
                reads = change.definition in now
            if reads:
                yield Reading(condition.kind, condition.name, condition.text, now)
        for gate in proto.gates:
            if self._requester_is(change, gate):
                yield Reading("requester of gate", gate.name, gate.approvers.requester_field, "")

    def _requester_is(self, change: Change, gate: pb.Gate) -> bool:
        message = gate.on
        for name in gate.approvers.requester_field.split("."):
            defined = self.before.messages.get(message)
            field = next((each for each in defined.proto.field if each.name == name), None) if defined else None
            if field is None:
                return False
            if (message, name) == (change.definition, change.member):
                return True
            message = field.type_name.removeprefix(".")
        return False


class _Condition(NamedTuple):
    """An expression of a template, and how it is compiled."""

    kind: str
    name: str
    text: str
    compile: Callable[[Contracts], object]


def _conditions(proto: pb.FlowTemplate) -> Iterator[_Condition]:
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


def _condition(kind: str, name: str, text: str, types: Sequence[str], proto: pb.FlowTemplate) -> _Condition:
    def compile_(contracts: Contracts) -> object:
        return Terms.of(proto, contracts).parse(text, types)

    return _Condition(kind, name, text, compile_)


def _count(name: str, text: str, facts: Collection[str]) -> _Condition:
    def compile_(contracts: Contracts) -> object:
        return Count.parse(text, latest_types=facts, contracts=contracts)

    return _Condition("join of step", name, text, compile_)


def _problem(condition: _Condition, contracts: Contracts) -> str:
    """Why a condition does not compile with these contracts; empty where it does."""
    try:
        condition.compile(contracts)
    except HandrailError as error:
        return error.text
    return ""


def _parts(
    steps: Iterable[pb.Step], types: Callable[[pb.Step], Iterable[str]], messages: frozenset[str]
) -> tuple[Part, ...]:
    return tuple(
        Part(step.agent, step.name, each) for step in steps for each in dict.fromkeys(types(step)) if each in messages
    )
