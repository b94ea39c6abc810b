"""A trial: the gates and rules of one template, run over the facts of one flow.

It knows nothing of what was recorded but the facts. Two trials over the same facts, one with the flow's own version and
one with a changed template, differ by nothing but the templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import HandrailError
from handrail.mesh.policy import FlowFacts
from handrail.mesh.specs import Consequence, GateSpec, RuleSpec
from handrail.mesh.template import Template

ENDS = frozenset({Consequence.COMPENSATE, Consequence.FAIL, Consequence.COMPLETE})
"""Consequences after which no gate and no rule of the flow is evaluated any more."""


class Facts(NamedTuple):
    """What a rule may read of the flow: how many facts of each type there are, the newest of each, the time elapsed."""

    counts: Mapping[str, int]
    latest: Mapping[str, Any]
    elapsed: timedelta


class Asked(NamedTuple):
    """A gate that asks people. `error` says why its condition can't be evaluated; empty where it holds."""

    gate: GateSpec
    recorded: Recorded
    error: str


class Tripped(NamedTuple):
    """A rule that trips at a fact; `error` as with `Asked`. `facts` are what it could read."""

    rule: RuleSpec
    recorded: Recorded
    facts: Facts
    error: str


class Trial:
    """See the module. `end` is the trip that ends the flow, once there is one: from there on nothing is evaluated."""

    __slots__ = ("_decoded", "_of", "asked", "end", "template", "tripped")

    def __init__(self, template: Template) -> None:
        self.template = template
        self.asked: dict[tuple[str, str], Asked] = {}
        """By gate and event id: a gate asks once for each event."""
        self.tripped: dict[str, Tripped] = {}
        """By the digest of the rule: a rule trips once a flow."""
        self.end: Tripped | None = None
        self._of: Any | None = None
        self._decoded: Message | None = None

    def move(self, template: Template) -> None:
        """Go on with another version's gates and rules."""
        self.template = template
        self._of = self._decoded = None

    def propose(self, recorded: Recorded) -> None:
        """Ask the gates on a message that is to be a fact, whether it came as a proposal or as a plain event."""
        if self.end is not None:
            return
        for gate in self.template.gates_on(recorded.type):
            key = (gate.name, recorded.event_id)
            if key in self.asked:
                continue
            holds, error = True, ""
            if gate.when is not None:
                try:
                    holds = gate.when.allows(event=self._message(recorded.event.data))
                except HandrailError as failure:
                    error = failure.text
            if holds:
                self.asked[key] = Asked(gate, recorded, error)

    def add(self, recorded: Recorded, facts: Facts) -> None:
        """Evaluate the rules at a fact, which `facts` contain already."""
        for rule in self.template.rules_on(recorded.type):
            if self.end is not None:
                return
            if rule.digest in self.tripped:
                continue
            holds, error = True, ""
            try:
                holds = rule.when.allows(
                    event=self._message(recorded.event.data), flow=self._facts(rule, recorded, facts)
                )
            except HandrailError as failure:
                error = failure.text
            if holds:
                tripped = self.tripped[rule.digest] = Tripped(rule, recorded, facts, error)
                if rule.then in ENDS:
                    self.end = tripped

    def _facts(self, rule: RuleSpec, recorded: Recorded, facts: Facts) -> FlowFacts:
        decode = self.template.contracts.decode
        latest = {
            message_type: decode(facts.latest[message_type])
            for table, message_type in rule.when.reads(recorded.type)
            if table == "flow.latest" and message_type in facts.latest
        }
        return FlowFacts(counts=facts.counts, latest=latest, elapsed=facts.elapsed)

    def _message(self, data: Any) -> Message:
        """The message by this template's contracts; decoded once for all that look at it."""
        if self._decoded is None or self._of is not data:
            self._decoded = self.template.contracts.decode(data)
            self._of = data
        return self._decoded
