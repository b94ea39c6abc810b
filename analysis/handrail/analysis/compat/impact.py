"""Whom a change of a contract affects: templates, and the agents, gates and rules in them. Pure.

A change of a message or an enum affects all messages that contain it. A condition reads a field if it does not compile
without that field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from handrail.analysis.check.part_checks import named_types
from handrail.analysis.compat.change import Change
from handrail.analysis.compat.consumers import Consumer, Use, uses
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.expressions import conditions, problem
from handrail.v1 import template_pb2 as pb

ENVELOPE_FILES = frozenset({"handrail/v1/event.proto", "handrail/v1/decision.proto", "handrail/v1/failure.proto"})
"""Files used by every agent and every flow, regardless of the template."""


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
    """A gate, rule, join or requester field that reads what changed. `problem` says why it does not compile with the
    new contracts; empty if it does."""

    kind: str
    name: str
    text: str
    problem: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A template version that uses a changed message, and who does what with it.

    `undoes` are agents that receive the message to undo its effect; `reports` are agents that report an undo with it.
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
        """The names of all affected agents, sorted."""
        parts = (*self.starts, *self.emits, *self.waits, *self.undoes, *self.reports)
        return tuple(sorted({part.agent for part in parts if part.agent}))


@dataclass(frozen=True, slots=True)
class Impact:
    """A change and whom it affects. `messages` are the messages that contain what changed, `calls` the RPCs that carry
    them. `consumers` are programs that declare to depend on it. `everybody` is set for Handrail's own envelope."""

    change: Change
    messages: tuple[str, ...]
    calls: tuple[str, ...]
    hits: tuple[Hit, ...]
    everybody: bool
    consumers: tuple[Use, ...] = ()

    @property
    def hits_anybody(self) -> bool:
        """Whether it affects an agent, a template, a client of an API or a consumer."""
        return bool(self.hits or self.calls or self.consumers or self.everybody)

    def plus(self, other: Impact) -> Impact:
        """Merges the impact of the same change against another baseline."""
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
    """Finds whom each change affects, in the order of the changes."""
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
        """The messages that contain what changed at any depth."""
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
        for condition in conditions(proto):
            if problem(condition, self.before.contracts):
                continue  # it was written for the new contracts
            now = problem(condition, self.after.contracts)
            if change.member:
                reads = bool(problem(condition, self.without(change.definition, change.member)))
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


def _parts(
    steps: Iterable[pb.Step], types: Callable[[pb.Step], Iterable[str]], messages: frozenset[str]
) -> tuple[Part, ...]:
    return tuple(
        Part(step.agent, step.name, each) for step in steps for each in dict.fromkeys(types(step)) if each in messages
    )
