"""Upper bounds of a template: how many facts of each type, and how many messages, a flow can have.

They are computed over the `graph` of the template, as if every branch were taken at once. Three rules bound a number:
an event begins one run of each step that waits for it, a join runs once, and a rule ends or holds the flow once it has
counted enough. The fan-out of one run of a step is bounded by its `max_outputs`, or by the join that counts the
messages: a number, or a field with a maximum in its contract.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from handrail.analysis.check.graph import FlowGraph
from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.field_rules import rules_of
from handrail.mesh.template.terms import emits_of
from handrail.v1 import template_pb2 as pb

Bound = int | None
"""An upper bound; None if nothing bounds the number."""

_LIMIT = re.compile(
    r"""\s* flow \s* \. \s* counts \s* \[ \s* (["']) (?P<type>[^"']+) \1 \s* \]
        \s* (?P<operator> >=? | == ) \s* (?P<number>[0-9]{1,9}) \s*""",
    re.VERBOSE,
)
_LOOK_UP = re.compile(r"""\s*latest\s*\[\s*(["'])(?P<type>[^"']+)\1\s*\]\s*\.\s*(?P<path>[\w.\s]+?)\s*""")
_SIZE = re.compile(r"\s*(?:size\s*\((?P<called>.*)\)|(?P<method>.*)\.\s*size\s*\(\s*\))\s*", re.DOTALL)
_NUMBERS = ("uint32", "uint64", "int32", "int64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64")


class Bounds:
    """The bounds of one template. An expression that does not compile bounds nothing; it has a finding of its own."""

    def __init__(self, proto: pb.FlowTemplate, graph: FlowGraph, contracts: Contracts) -> None:
        self._proto = proto
        self._graph = graph
        self._contracts = contracts
        self._known: dict[str, Bound] = {}
        self._certain: dict[str, Bound] = {}
        self._under_way: set[str] = set()

    @cached_property
    def limits(self) -> Mapping[str, int]:
        """The maximum number of facts of a type until a rule ends or holds the flow, by type.

        A rule limits a type if it is evaluated at that type, and only compares its `flow.counts` with a number, or
        several such comparisons joined by `||`.
        """
        limits: dict[str, int] = {}
        for rule in self._proto.rules:
            alternatives = [_LIMIT.fullmatch(part) for part in rule.when.split("||")]
            if not all(alternatives):
                continue
            for found in filter(None, alternatives):
                name, number = found["type"], int(found["number"]) + (found["operator"] == ">")
                if name in rule.on:
                    limits[name] = min(number, limits.get(name, number))
        return limits

    def facts(self, event: str) -> Bound:
        """The maximum number of facts of a type in a flow."""
        if event not in self._known:
            if event in self._under_way:
                return None  # the event can lead to itself
            self._under_way.add(event)
            bound = self._sum(event)
            self._under_way.discard(event)
            limit = self.limits.get(event)
            if limit is not None:
                bound = limit if bound is None else min(bound, limit)
            self._known[event] = bound
        return self._known[event]

    def certain(self, event: str) -> Bound:
        """The maximum number of facts of a type, whatever agents do: from the `max_outputs` of all steps before it."""
        if event in self._certain:
            return self._certain[event]
        self._certain[event] = None  # during the computation: an event that leads to itself has no bound
        bounds: list[Bound] = [1 if event in self._graph.starts else 0]
        for index in self._emitters.get(event, ()):
            step = self._proto.steps[index]
            runs = 1 if step.after_all else _added(self.certain(before) for before in step.after)
            bounds.append(runs * step.max_outputs if runs is not None and step.max_outputs else None)
        bound = self._certain[event] = _added(bounds)
        return bound

    def runs(self, index: int) -> Bound:
        """The maximum number of runs of a step."""
        step = self._proto.steps[index]
        if step.after_all:
            return 1
        return _added(self.facts(event) for event in step.after)

    def counted(self, join: pb.JoinInput) -> Bound:
        """The maximum number of messages that an input of a join can wait for."""
        text = join.count.strip() or "1"
        if text.isascii() and text.isdecimal():
            return int(text)
        look_up, size = _LOOK_UP.fullmatch(text), _SIZE.fullmatch(text)
        if look_up is None and size is not None:
            look_up = _LOOK_UP.fullmatch(size["called"] or size["method"] or "")
        else:
            size = None
        field = None if look_up is None else _field(self._contracts, look_up["type"], look_up["path"])
        return None if field is None else _largest(field, counts_items=size is not None)

    @cached_property
    def unbounded_fan_outs(self) -> tuple[tuple[int, int], ...]:
        """The inputs of joins, by step and position, without a bound on their number."""
        return tuple(
            (index, position)
            for index, step in enumerate(self._proto.steps)
            for position, join in enumerate(step.after_all)
            if self.counted(join) is None and self.certain(join.type) is None
        )

    @cached_property
    def most_messages(self) -> Bound:
        """The maximum number of messages if all steps answer at the first attempt; without votes and undos."""
        gated = {gate.on for gate in self._proto.gates}
        emitted = set().union(*(emits_of(step) for step in self._proto.steps)) if self._proto.steps else set()
        facts = [self.facts(event) for event in sorted(emitted & self._graph.possible)]
        proposals = [self.facts(event) for event in sorted(emitted & gated & self._graph.possible)]
        return _added([1, *facts, *proposals])

    @cached_property
    def fewest_messages(self) -> int:
        """The minimum number of messages until a join with a fixed number can run; 1 without such a join."""
        numbers = [
            sum(int(join.count) for join in step.after_all if join.count.strip().isdecimal())
            for index, step in enumerate(self._proto.steps)
            if step.after_all and index in self._graph.reachable and self._leads_to_every_end(index)
        ]
        return 1 + max(numbers, default=0)

    def _leads_to_every_end(self, index: int) -> bool:
        """Whether no flow completes without this step."""
        without = pb.FlowTemplate()
        without.CopyFrom(self._proto)
        del without.steps[index]
        return FlowGraph(without).possible.isdisjoint(self._graph.completes)

    def _sum(self, event: str) -> Bound:
        certain = self.certain(event)
        if certain is not None:
            return certain
        fan_out = self._fanned.get(event, 1)
        begun = 1 if event in self._graph.starts else 0
        made = _added(self.runs(index) for index in self._emitters.get(event, ()))
        if made is None or (fan_out is None and made):
            return None
        # A join counts this type: the fan-out is the number it waits for, no matter how many runs produce it.
        return begun + (max(made, fan_out or 1) if made else 0)

    @cached_property
    def _emitters(self) -> dict[str, list[int]]:
        emitters: defaultdict[str, list[int]] = defaultdict(list)
        for index, outcomes in enumerate(self._graph.outcomes):
            if index in self._graph.reachable:
                for event in outcomes:
                    emitters[event].append(index)
        return dict(emitters)

    @cached_property
    def _fanned(self) -> Mapping[str, Bound]:
        """The maximum fan-out of one run by type, for the types that joins count and the types before them.

        The way back from a counted input ends at the beginning of the flow, at a join, and at the event that has the
        number.
        """
        fanned: dict[str, Bound] = {}
        for step in self._proto.steps:
            for join in step.after_all:
                number = self.counted(join)
                if number == 1:
                    continue
                told_by = {
                    found["type"]
                    for found in [re.search(r"""latest\s*\[\s*["'](?P<type>[^"']+)""", join.count)]
                    if found
                }
                for event in self._upstream(join.type, told_by):
                    known = fanned.get(event, 1)
                    fanned[event] = None if number is None or known is None else max(number, known)
        return fanned

    def _upstream(self, event: str, stop: set[str]) -> set[str]:
        reached: set[str] = set()
        waiting = [event]
        while waiting:
            each = waiting.pop()
            if each in reached or each in stop or each in self._graph.starts:
                continue
            reached.add(each)
            for index in self._emitters.get(each, ()):
                waiting += self._proto.steps[index].after
        return reached


def _added(bounds: Iterable[Bound]) -> Bound:
    total = 0
    for bound in bounds:
        if bound is None:
            return None
        total += bound
    return total


def _field(contracts: Contracts, message_type: str, path: str) -> FieldDescriptor | None:
    """The field that a path leads to, or None."""
    names = ["".join(name.split()) for name in path.split(".")]
    if not contracts.knows(message_type):
        return None
    definition = cast("Descriptor | None", contracts.message_class(message_type).DESCRIPTOR)
    field = None
    for name in names:
        field = definition.fields_by_name.get(name) if definition is not None else None
        definition = field.message_type if field is not None else None
    return field


def _largest(field: FieldDescriptor, *, counts_items: bool) -> Bound:
    """The largest value, or the largest number of items, that the rules of the field allow."""
    rules = rules_of(field)
    if counts_items:
        return rules.repeated.max_items if rules.repeated.HasField("max_items") else None
    kind = rules.WhichOneof("type")
    if kind not in _NUMBERS:
        return None
    number = getattr(rules, kind)
    for name, less in (("const", 0), ("lte", 0), ("lt", 1)):
        if number.HasField(name):
            return int(getattr(number, name)) - less
    return None
