"""A template as a chart: its nodes and edges, without positions."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum

from handrail.analysis.check.graph import goes_on
from handrail.analysis.diff.phrases import Names, enumerated, people, spoken
from handrail.mesh.printable import shortened
from handrail.mesh.template.specs import APPROVAL_REFUSED, STEP_COMPLETED
from handrail.mesh.template.terms import emits_of
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction

_LINE = 38
_LINES = 3

_UNDONE, _FAILED, _ASKED, _HELD = "effects undone", "failed", "a person is asked", "held, a person is asked"
_FAILED_STEP = {pb.FAILURE_ACTION_COMPENSATE: _UNDONE, pb.FAILURE_ACTION_FAIL: _FAILED}


class Kind(StrEnum):
    """What a node represents."""

    START = "start"
    EVENT = "event"
    JOIN = "join"
    STEP = "step"
    UNDOABLE = "undoable"
    IRREVERSIBLE = "irreversible"
    GATE = "gate"
    RULE = "rule"
    COMPLETED = "completed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its lines of text, beginning with its name, and its tooltip."""

    key: str
    kind: Kind
    lines: tuple[str, ...]
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge. `aside`: not on the path of a flow without problems; `label` says when it is taken, if not always."""

    source: str
    target: str
    aside: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """Nodes and edges, in the order of the template."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def chart_of(template: pb.FlowTemplate) -> Chart:
    """The chart of a template."""
    return _Charting(template).chart()


class _Charting:
    def __init__(self, template: pb.FlowTemplate) -> None:
        self._template = template
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str], Edge] = {}
        triggers = [(*step.after, *(join.type for join in step.after_all)) for step in template.steps]
        self._waited = set(template.completes_with).union(*triggers, *(rule.on for rule in template.rules))
        self._types = self._waited.union(template.starts_with, *map(emits_of, template.steps))
        self._names = Names(self._types)

    def chart(self) -> Chart:
        self._start()
        for step in self._template.steps:
            self._step(step)
        for gate in self._template.gates:
            self._gate(gate)
        for rule in self._template.rules:
            self._rule(rule)
        for message_type in self._template.completes_with:
            self._link(self._fact(message_type), self._node("completed", Kind.COMPLETED, "completed"))
        title = f"{self._template.name}@{self._template.version}"
        return Chart(title, tuple(self._nodes.values()), tuple(self._edges.values()))

    def _start(self) -> None:
        template = self._template
        starters = f"by {enumerated(template.started_by, 'or')}, or a person" if template.started_by else "by a person"
        limit = [f"to be done in {spoken(template.deadline.ToTimedelta())}"] if template.HasField("deadline") else []
        start = self._node("start", Kind.START, template.name, *_wrapped(starters), *limit)
        for message_type in template.starts_with:
            self._link(start, self._event(message_type))
        if limit:
            self._link(start, self._end(_ASKED), aside=True, label="not done in time")

    def _step(self, step: pb.Step) -> None:
        kinds = {pb.EFFECT_UNDOABLE: Kind.UNDOABLE, pb.EFFECT_IRREVERSIBLE: Kind.IRREVERSIBLE}
        kind = kinds.get(step.effect, Kind.STEP)
        attempts = step.retry.max_attempts or 1
        within = spoken(step.timeout.ToTimedelta())
        lines = [
            f"agent {step.agent}{', through the API' if step.external else ''}",
            f"{within}, {attempts} attempts" if attempts > 1 else within,
        ]
        if step.HasField("undo"):
            lines.append(f"can be undone in {spoken(step.undo.timeout.ToTimedelta())}")
        elif kind is Kind.IRREVERSIBLE:
            lines.append("can't be undone")
        node = self._node(f"step {step.name}", kind, step.name, *lines)
        if step.after_all:
            join = self._join(step)
            self._link(join, node)
        for message_type in step.after:
            self._link(self._fact(message_type), node)
        for message_type in step.emits or [STEP_COMPLETED]:
            if message_type != STEP_COMPLETED or message_type in self._waited:
                self._link(node, self._event(message_type))
        self._link(
            node, self._end(_FAILED_STEP.get(step.on_failure, _ASKED)), aside=True, label="fails or takes too long"
        )
        if step.HasField("undo"):
            self._link(node, self._end(_ASKED), aside=True, label="undo fails")

    def _join(self, step: pb.Step) -> str:
        several = [
            f"{self._short(' '.join(join.count.split()))} of {self._names.short(join.type)}"
            for join in step.after_all
            if join.count.strip() not in ("", "1")
        ]
        lines = [line for each in several for line in _wrapped(each)]
        node = self._node(f"join {step.name}", Kind.JOIN, "all of these", *lines, tip=", ".join(several))
        for join in step.after_all:
            self._link(self._fact(join.type), node)
        return node

    def _gate(self, gate: pb.Gate) -> None:
        condition = " ".join(gate.when.split())
        roles = enumerated(gate.approvers.roles, "or") if gate.approvers.roles else "nobody"
        voters = f"{people(gate.approvers.quorum or 1)} of {roles}"
        lines = [*_wrapped(f"if {self._short(condition)}" if condition else "always"), *_wrapped(voters)]
        if gate.HasField("expires_after"):
            lines.append(f"in {spoken(gate.expires_after.ToTimedelta())}")
        node = self._node(f"gate {gate.name}", Kind.GATE, gate.name, *lines, tip=f"{condition or 'always'}: {voters}")
        before = [each for each in self._template.gates if each.on == gate.on]
        first = before.index(gate)
        self._link(f"gate {before[first - 1].name}" if first else self._event(gate.on), node)
        self._refused(gate, node, "refused")
        if gate.HasField("expires_after") and gate.on_expiry != pb.EXPIRY_ACTION_WAIT:
            self._expired(gate, node)

    def _refused(self, gate: pb.Gate, node: str, label: str) -> None:
        if not goes_on(gate):
            undone = gate.on_reject == pb.REJECT_ACTION_COMPENSATE
            self._link(node, self._end(_UNDONE if undone else _FAILED), aside=True, label=label)
        elif APPROVAL_REFUSED in self._waited:
            self._link(node, self._event(APPROVAL_REFUSED), aside=True, label=label)

    def _expired(self, gate: pb.Gate, node: str) -> None:
        """The way of a proposal that nobody answered; one that counts as approved goes on as if it was."""
        label = "no answer"
        if gate.on_expiry == pb.EXPIRY_ACTION_ESCALATE:
            self._link(node, self._end(_ASKED), aside=True, label=label)
        elif gate.on_expiry != pb.EXPIRY_ACTION_APPROVE:
            self._refused(gate, node, label)

    def _rule(self, rule: pb.Rule) -> None:
        condition = " ".join(rule.when.split())
        node = self._node(
            f"rule {rule.name}", Kind.RULE, rule.name, *_wrapped(f"if {self._short(condition)}"), tip=condition
        )
        for message_type in rule.on:
            self._link(self._fact(message_type), node, aside=True)
        if rule.then == RuleAction.RULE_ACTION_COMPLETE:
            end = self._node("completed", Kind.COMPLETED, "completed")
        else:
            ends = {RuleAction.RULE_ACTION_COMPENSATE: _UNDONE, RuleAction.RULE_ACTION_FAIL: _FAILED}
            end = self._end(ends.get(rule.then, _HELD))
        self._link(node, end, aside=True)

    def _short(self, expression: str) -> str:
        """An expression with short names for the template's messages."""
        for message_type in sorted(self._types, key=len, reverse=True):
            expression = expression.replace(f"'{message_type}'", f"'{self._names.short(message_type)}'")
        return expression

    def _end(self, text: str) -> str:
        return self._node(f"end {text}", Kind.ENDED, text)

    def _event(self, message_type: str) -> str:
        """The node of a message as published: a proposal if it is gated."""
        name = self._names.short(message_type)
        return self._node(f"event {message_type}", Kind.EVENT, shortened(name, 2 * _LINE), tip=message_type)

    def _fact(self, message_type: str) -> str:
        """The node from which a message counts: its last gate, or the event itself."""
        gates = [gate for gate in self._template.gates if gate.on == message_type]
        return f"gate {gates[-1].name}" if gates else self._event(message_type)

    def _node(self, key: str, kind: Kind, *lines: str, tip: str = "") -> str:
        self._nodes.setdefault(key, Node(key, kind, lines, tip))
        return key

    def _link(self, source: str, target: str, *, aside: bool = False, label: str = "") -> None:
        """Adds an edge. Two ways between the same nodes are one edge, with the labels of both."""
        before = self._edges.get((source, target))
        if before is not None:
            aside = aside and before.aside
            labels = [each for each in (before.label, label) if each]
            label = " or ".join(dict.fromkeys(labels)) if aside else ""
        self._edges[source, target] = Edge(source, target, aside, label)


def _wrapped(text: str) -> list[str]:
    """Wraps text into lines, and cuts the last one if there are too many."""
    return textwrap.wrap(text, _LINE, max_lines=_LINES, placeholder=" …", break_on_hyphens=False)
