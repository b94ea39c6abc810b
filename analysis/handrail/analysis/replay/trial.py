"""A trial: runs the gates and rules of one template over the facts of one flow.

Of the recorded flow it knows only the facts. So two trials over the same facts, one with the flow's own version and one
with a changed template, differ only because of the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Proposal
from handrail.mesh.flow.facts import FlowFacts
from handrail.mesh.template import Template
from handrail.mesh.template.specs import GateSpec, RuleSpec
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import RULE_ACTION_COMPENSATE, RULE_ACTION_COMPLETE, RULE_ACTION_FAIL

ENDS = frozenset({RULE_ACTION_COMPENSATE, RULE_ACTION_FAIL, RULE_ACTION_COMPLETE})
"""Actions after which no gate or rule of the flow is evaluated any more."""


class Facts(NamedTuple):
    """The inputs of a condition at one event: the first event, the facts by type, the proposals by id."""

    first: Recorded
    by_type: Mapping[str, Sequence[Recorded]]
    asked: Mapping[str, Proposal]

    @classmethod
    def of(cls, flow: Flow) -> Facts:
        """The facts of a flow that has begun, in its current state."""
        assert flow.first is not None
        return cls(flow.first, flow.facts_by_type, flow.proposals)

    def at(self, recorded: Recorded, contracts: Contracts) -> FlowFacts:
        """The facts in the form that a condition reads, at this event."""
        return FlowFacts(
            contracts=contracts, first_event=self.first, by_type=self.by_type, asked=self.asked, at=recorded
        )


class Asked(NamedTuple):
    """A gate that asks for approval. `error` says why its condition can't be evaluated; empty if the condition is true.
    `facts` are its inputs."""

    gate: GateSpec
    recorded: Recorded
    facts: Facts
    error: str


class Tripped(NamedTuple):
    """A rule that trips at a fact; `error` and `facts` as in `Asked`."""

    rule: RuleSpec
    recorded: Recorded
    facts: Facts
    error: str


class Trial:
    """The verdicts of one template. `end` is the trip that ends the flow, if any: after it nothing is evaluated."""

    __slots__ = ("_decoded", "_of", "asked", "end", "template", "tripped")

    def __init__(self, template: Template) -> None:
        self.template = template
        self.asked: dict[tuple[str, str], Asked] = {}
        """By gate and event id: a gate asks once per event."""
        self.tripped: dict[str, Tripped] = {}
        """By the digest of the rule: a rule trips once per flow."""
        self.end: Tripped | None = None
        self._of: Any | None = None
        self._decoded: Message | None = None

    def move(self, template: Template) -> None:
        """Continues with the gates and rules of another version."""
        self.template = template
        self._of = self._decoded = None

    def propose(self, recorded: Recorded, facts: Facts) -> None:
        """Evaluates the gates on a message before it becomes a fact, no matter if it was a proposal or a plain event.

        `facts` do not include it.
        """
        if self.end is not None:
            return
        for gate in self.template.gates_on(recorded.type):
            key = (gate.name, recorded.event_id)
            if key in self.asked:
                continue
            holds, error = True, ""
            if gate.when is not None:
                try:
                    holds = gate.when.allows(
                        event=self._message(recorded.event.data), flow=facts.at(recorded, self.template.contracts)
                    )
                except HandrailError as failure:
                    error = failure.text
            if holds:
                self.asked[key] = Asked(gate, recorded, facts, error)

    def add(self, recorded: Recorded, facts: Facts) -> None:
        """Evaluates the rules at a fact; `facts` already include it."""
        for rule in self.template.rules_on(recorded.type):
            if self.end is not None:
                return
            if rule.digest in self.tripped:
                continue
            holds, error = True, ""
            try:
                holds = rule.when.allows(
                    event=self._message(recorded.event.data), flow=facts.at(recorded, self.template.contracts)
                )
            except HandrailError as failure:
                error = failure.text
            if holds:
                tripped = self.tripped[rule.digest] = Tripped(rule, recorded, facts, error)
                if rule.then in ENDS:
                    self.end = tripped

    def _message(self, data: Any) -> Message:
        """The message, decoded with this template's contracts; cached for all gates and rules."""
        if self._decoded is None or self._of is not data:
            self._decoded = self.template.contracts.decode(data)
            self._of = data
        return self._decoded
