"""The terms of a template: the types that its conditions may refer to, and the types that its steps emit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from handrail.mesh.conditions.policy import Policy
from handrail.mesh.contracts import Contracts
from handrail.mesh.template.specs import STEP_COMPLETED
from handrail.v1 import template_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a template's conditions may refer to: the types of its facts, and the types that begin a flow."""

    contracts: Contracts
    facts: frozenset[str]
    starts: frozenset[str]

    @classmethod
    def of(cls, proto: pb.FlowTemplate, contracts: Contracts) -> Terms:
        """The terms of a template."""
        return cls(contracts=contracts, facts=fact_types(proto), starts=frozenset(proto.starts_with))

    def known(self) -> Terms:
        """The terms without types that the contracts don't define."""
        known = self.contracts.knows
        return replace(self, facts=frozenset(filter(known, self.facts)), starts=frozenset(filter(known, self.starts)))

    def parse(self, text: str, event_types: Collection[str]) -> Policy:
        """Compiles a condition for events of these types. Raises `PolicyError`, as `Policy.parse` does."""
        return Policy.parse(
            text,
            event_types=event_types,
            contracts=self.contracts,
            fact_types=self.facts,
            first_types=sorted(self.starts),
        )


def fact_types(proto: pb.FlowTemplate) -> frozenset[str]:
    """The types that can become facts of a flow: those that begin it, and those that its steps emit."""
    return frozenset(proto.starts_with).union(*(emits_of(step) for step in proto.steps))


def emits_of(step: pb.Step) -> frozenset[str]:
    """The types that a step may answer with: those in the template, or StepCompleted if there are none."""
    return frozenset(step.emits or [STEP_COMPLETED])
