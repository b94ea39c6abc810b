"""The checks of single names, expressions and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from handrail.analysis.check.codes import finding
from handrail.mesh.conditions.cost import MOST
from handrail.mesh.conditions.look_ups import COUNTS, FACTS, PROPOSALS, nearest
from handrail.mesh.conditions.policy import Policy
from handrail.mesh.contracts import Contracts, well_known
from handrail.mesh.contracts.field_rules import excludes_infinity
from handrail.mesh.errors import HandrailError, PolicyError
from handrail.mesh.permissions import RESERVED
from handrail.mesh.printable import cut
from handrail.mesh.template.compilation import bounded
from handrail.mesh.template.specs import APPROVAL_REFUSED, STEP_COMPLETED
from handrail.mesh.template.terms import Terms
from handrail.v1 import template_pb2 as pb

MAX_EXPRESSIONS = 200
"""The maximum number of expressions of a template. A rule counts once per event that it names, and an expression that
reads `flow.first` once per type that a flow may start with. A coordinator compiles all of them at start-up."""

MAX_CHARACTERS = 50_000
"""The maximum length of all of them: each thousand takes 7 ms to compile."""

_FIRST = re.compile(r"\bflow\s*\.\s*first\b")

MAX_DURATION = timedelta(days=366)
"""The upper bound of all durations in a template."""


class NamedType(NamedTuple):
    """A message type at one place of the template, with the types of Handrail that are allowed there."""

    path: str
    full_name: str
    allowed: frozenset[str]


def named_types(proto: pb.FlowTemplate) -> Iterator[NamedType]:
    """All message types that the template names, in order."""
    none, completion, refusal = frozenset[str](), frozenset({STEP_COMPLETED}), frozenset({APPROVAL_REFUSED})
    yield from _listed("starts_with", proto.starts_with, none)
    yield from _listed("completes_with", proto.completes_with, completion)
    for index, step in enumerate(proto.steps):
        yield from _listed(f"steps[{index}].after", step.after, refusal)
        for position, join in enumerate(step.after_all):
            yield NamedType(f"steps[{index}].after_all[{position}].type", join.type, none)
        yield from _listed(f"steps[{index}].emits", step.emits, completion)
        yield from _listed(f"steps[{index}].undo.emits", step.undo.emits, completion)
    for index, gate in enumerate(proto.gates):
        yield NamedType(f"gates[{index}].on", gate.on, none)
    for index, rule in enumerate(proto.rules):
        yield from _listed(f"rules[{index}].on", rule.on, none)


def check_contract(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Broken rules of the template's contract, and durations beyond the bound."""
    told: set[str] = set()
    for violation in contracts.violations(proto):
        told.add(violation.field)
        yield finding("HR001", violation.field, f"{violation.text} [{violation.rule}]")
    for path, duration in well_known.within(proto):
        if duration.seconds > MAX_DURATION.total_seconds() and path not in told:
            yield finding("HR001", path, f"{duration.seconds:,} seconds are more than {MAX_DURATION.days} days")


def check_size(proto: pb.FlowTemplate) -> Iterator[pb.Finding]:
    """Too many expressions, or too long ones, to compile quickly."""
    compiled = [gate.when for gate in proto.gates if gate.when.strip()]
    compiled += [join.count for step in proto.steps for join in step.after_all if not join.count.isdecimal()]
    compiled += [rule.when for rule in proto.rules for _ in rule.on]
    starts = max(1, len(proto.starts_with))
    times = [starts if _FIRST.search(text) else 1 for text in compiled if text]
    if sum(times) > MAX_EXPRESSIONS:
        yield finding("HR029", "", f"there are {sum(times):,} expressions; at most {MAX_EXPRESSIONS} are compiled")
    length = sum(len(text) * number for text, number in zip(filter(None, compiled), times, strict=True))
    if length > MAX_CHARACTERS:
        yield finding(
            "HR029", "", f"the expressions have {length:,} characters; at most {MAX_CHARACTERS:,} are compiled"
        )


def check_types(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Message types that don't exist, are Handrail's own, or have rules that can't be applied."""
    known = contracts.message_names
    tried: set[str] = set()
    for path, full_name, allowed in named_types(proto):
        if full_name in allowed:
            continue
        if full_name.startswith("handrail."):
            here = f"only {', '.join(sorted(allowed))} may stand here" if allowed else "none may stand here"
            yield finding("HR003", path, f"{cut(full_name)} belongs to Handrail; {here}")
        elif not contracts.knows(full_name):
            yield finding("HR002", path, f"the contracts have no message {cut(full_name)}{nearest(full_name, known)}")
        elif full_name not in tried:
            tried.add(full_name)
            try:
                contracts.violations(contracts.message_class(full_name)())
            except HandrailError as error:
                yield finding("HR006", path, error.text)


def check_names(proto: pb.FlowTemplate) -> Iterator[pb.Finding]:
    """Duplicate names, and agents with a reserved name."""
    for part in ("steps", "gates", "rules"):
        seen: dict[str, int] = {}
        for index, named in enumerate(getattr(proto, part)):
            first = seen.setdefault(named.name, index)
            if first != index:
                yield finding("HR004", f"{part}[{index}].name", f"{part}[{first}] is called {cut(named.name)} too")
    agents = [(f"started_by[{index}]", agent) for index, agent in enumerate(proto.started_by)]
    agents += [(f"steps[{index}].agent", step.agent) for index, step in enumerate(proto.steps)]
    for path, agent in agents:
        if agent in RESERVED:
            yield finding("HR005", path, f"no agent can have the name {agent}: Handrail reserves it")


def check_effects(proto: pb.FlowTemplate) -> Iterator[pb.Finding]:
    """Effects without undo, undos without effect, and what only a worker can do in a step that has none."""
    for index, step in enumerate(proto.steps):
        path = f"steps[{index}]"
        if step.effect == pb.EFFECT_UNDOABLE and not step.HasField("undo"):
            yield finding("HR015", path, f"the effect of step {step.name} is UNDOABLE, and nothing says how")
        if step.effect != pb.EFFECT_UNDOABLE and step.HasField("undo"):
            yield finding("HR016", f"{path}.undo", f"step {step.name} has an undo, and no effect that is UNDOABLE")
        if step.external and step.HasField("undo"):
            yield finding("HR039", f"{path}.undo", f"step {step.name} is external: no worker would be told to undo it")
        if step.external and step.HasField("start_within"):
            yield finding("HR039", f"{path}.start_within", f"step {step.name} is external: no worker begins it")


def check_gates(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Conditions, expiries and requesters of gates."""
    terms = Terms.of(proto, contracts).known()
    for index, gate in enumerate(proto.gates):
        path = f"gates[{index}]"
        waits = gate.on_expiry == pb.EXPIRY_ACTION_WAIT
        if not waits and not gate.HasField("expires_after"):
            yield finding("HR023", path, f"gate {gate.name} asks people and does not say how long they have")
        if waits and gate.HasField("expires_after"):
            yield finding("HR024", f"{path}.expires_after", f"gate {gate.name} waits forever: this has no effect")
        if not contracts.knows(gate.on):
            continue
        if gate.when.strip():
            try:
                yield from _condition(f"{path}.when", terms.parse(gate.when, [gate.on]), contracts)
            except PolicyError as error:
                yield finding("HR027", f"{path}.when", error.text)
        if gate.approvers.requester_field:
            yield from _requester(f"{path}.approvers.requester_field", gate, contracts)


def check_rules(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Conditions of rules, at each of the events they name."""
    terms = Terms.of(proto, contracts).known()
    for index, rule in enumerate(proto.rules):
        path, told = f"rules[{index}].when", set[str]()
        for event_type in filter(contracts.knows, rule.on):
            try:
                for found in _condition(path, terms.parse(rule.when, [event_type]), contracts):
                    if found.text not in told:
                        told.add(found.text)
                        yield found
            except PolicyError as error:
                yield finding("HR027", path, f"at {event_type}: {error.text}")


def check_own_type(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Gates that read the facts of a gated type, but not its proposals."""
    terms, gated = Terms.of(proto, contracts).known(), {gate.on for gate in proto.gates}
    for index, gate in enumerate(proto.gates):
        if not gate.when.strip() or not contracts.knows(gate.on):
            continue
        try:
            reads = set(terms.parse(gate.when, [gate.on]).reads(gate.on))
        except PolicyError:
            continue  # reported by another check
        added = {name for table, name in reads if table in (COUNTS, FACTS)} & gated
        for name in sorted(added - {name for table, name in reads if table == PROPOSALS}):
            text = f"gate {gate.name} looks at how many {name} there are: those that wait for people are not among them"
            yield finding("HR036", f"gates[{index}].when", text)


def check_times(proto: pb.FlowTemplate) -> Iterator[pb.Finding]:
    """Durations longer than the deadline of the flow."""
    deadline = bounded(proto.deadline)
    bounds = [(f"steps[{index}].timeout", step.timeout) for index, step in enumerate(proto.steps)]
    bounds += [
        (f"steps[{index}].start_within", step.start_within)
        for index, step in enumerate(proto.steps)
        if step.HasField("start_within")
    ]
    bounds += [
        (f"gates[{index}].expires_after", gate.expires_after)
        for index, gate in enumerate(proto.gates)
        if gate.on_expiry != pb.EXPIRY_ACTION_WAIT
    ]
    for path, duration in bounds:
        if proto.HasField("deadline") and bounded(duration) > deadline:
            yield finding(
                "HR028",
                path,
                f"{_seconds(bounded(duration))} is longer than the flow may take ({_seconds(deadline)})",
            )


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.12g}s"


def _condition(path: str, policy: Policy, contracts: Contracts) -> Iterator[pb.Finding]:
    """The findings on a condition that compiles."""
    if policy.problem:
        yield finding("HR027", path, f'"{cut(policy.text)}": {policy.problem}')
    if policy.may_be_too_dear(contracts):
        yield finding(
            "HR037",
            path,
            f"with the largest messages that the contracts allow it would cost more than {MOST:,}, "
            "the most that is evaluated",
        )
    for read in policy.numbers:
        definition = cast("Descriptor | None", contracts.message_class(read.message_type).DESCRIPTOR)
        field = definition.fields_by_name.get(read.field) if definition else None
        if field is not None and not excludes_infinity(field):
            yield finding(
                "HR034", path, f"nothing in the contract of {read.message_type} says that {read.field} is finite"
            )


def _listed(path: str, names: Iterable[str], allowed: frozenset[str]) -> Iterator[NamedType]:
    for index, full_name in enumerate(names):
        yield NamedType(f"{path}[{index}]", full_name, allowed)


def _requester(path: str, gate: pb.Gate, contracts: Contracts) -> Iterator[pb.Finding]:
    if not gate.approvers.not_the_requester:
        yield finding("HR026", path, f"gate {gate.name} lets the requester vote: nobody looks at this field")
    definition = cast("Descriptor | None", contracts.message_class(gate.on).DESCRIPTOR)
    *outer, last = gate.approvers.requester_field.split(".")
    for name in outer:
        field = definition.fields_by_name.get(name) if definition else None
        definition = field.message_type if field is not None and not field.is_repeated else None
    field = definition.fields_by_name.get(last) if definition else None
    if field is None or field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
        known = [
            field.name
            for field in (definition.fields if definition else ())
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
        ]
        hint = f"; its single string fields are {', '.join(known)}" if known else ""
        yield finding(
            "HR025", path, f"{gate.on} has no single string field {cut(gate.approvers.requester_field)}{hint}"
        )
