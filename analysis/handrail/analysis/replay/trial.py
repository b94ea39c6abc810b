"""A trial: the gates and rules of one template, run over the facts of one flow.

It knows nothing of what was recorded but the facts. Two trials over the same facts, one with the flow's own version and
one with a changed template, differ by nothing but the templates.
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
"""Actions after which no gate and no rule of the flow is evaluated any more."""


class Facts(NamedTuple):
    """What a condition may read of the flow at one event: its first event, its facts by type, its proposals by id."""

    first: Recorded
    by_type: Mapping[str, Sequence[Recorded]]
    asked: Mapping[str, Proposal]

    @classmethod
    def of(cls, flow: Flow) -> Facts:
        """Of a flow that has begun, as it stands."""
        assert flow.first is not None
        return cls(flow.first, flow.facts_by_type, flow.proposals)

    def at(self, recorded: Recorded, contracts: Contracts) -> FlowFacts:
        """The same as a condition looks at it, asked about this event."""
        return FlowFacts(
            contracts=contracts, first_event=self.first, by_type=self.by_type, asked=self.asked, at=recorded
        )


class Asked(NamedTuple):
    """A gate that asks people. `error` says why its condition can't be evaluated; empty where it holds. `facts` are
    what it could read."""

    gate: GateSpec
    recorded: Recorded
    facts: Facts
    error: str


class Tripped(NamedTuple):
    """A rule that trips at a fact; `error` and `facts` as with `Asked`."""

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

    def propose(self, recorded: Recorded, facts: Facts) -> None:
        """Ask the gates on a message that is to be a fact, whether it came as a proposal or as a plain event.

        `facts` are without it.
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
        """Evaluate the rules at a fact, which `facts` contain already."""
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
        """The message by this template's contracts; decoded once for all that look at it."""
        if self._decoded is None or self._of is not data:
            self._decoded = self.template.contracts.decode(data)
            self._of = data
        return self._decoded
