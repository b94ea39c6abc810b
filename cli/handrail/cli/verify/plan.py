"""The part of a template that the rules need, read directly from its stored bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from google.protobuf.message import DecodeError

from handrail.cli.verify.record import Stored
from handrail.v1.failure_pb2 import StepCompleted
from handrail.v1.template_pb2 import Effect, ExpiryAction, FlowTemplate, Gate, Step, StoredTemplate

Plans = Mapping[tuple[str, int], "Plan"]
"""Plans by flow type and version."""

COMPLETED = StepCompleted.DESCRIPTOR.full_name


@dataclass(frozen=True)
class Plan:
    """One version of a template."""

    template: FlowTemplate

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """The steps by name."""
        return {step.name: step for step in self.template.steps}

    @property
    def deadline(self) -> timedelta:
        """How long a flow may take."""
        return self.template.deadline.ToTimedelta()

    def waiting_for(self, type_name: str) -> list[Step]:
        """Returns the steps that a fact of this type triggers by itself."""
        return [step for step in self.template.steps if type_name in step.after]

    def joins(self) -> list[Step]:
        """Returns the steps that wait for several facts."""
        return [step for step in self.template.steps if step.after_all]

    def gates_on(self, type_name: str) -> list[Gate]:
        """Returns the gates that guard a type."""
        return [gate for gate in self.template.gates if gate.on == type_name]

    def answers(self, step: Step, type_name: str) -> bool:
        """Tells whether the step may answer with this type."""
        return type_name in step.emits or type_name == COMPLETED

    def begins(self, type_name: str, source: str) -> bool:
        """Tells whether a flow may begin with this type, from this source."""
        return type_name in self.template.starts_with and source in (*self.template.started_by, "coordinator")


def has_effect(step: Step) -> bool:
    """Tells whether a step changes something outside the stream."""
    return step.effect != Effect.EFFECT_NONE


def passes_by_expiry(gate: Gate) -> bool:
    """Tells whether an expired gate counts as approved."""
    return gate.on_expiry == ExpiryAction.EXPIRY_ACTION_APPROVE


def read_plans(stored: Iterable[Stored]) -> dict[tuple[str, int], Plan]:
    """Reads the plans in a TEMPLATE stream; activations and unreadable templates are omitted."""
    plans: dict[tuple[str, int], Plan] = {}
    for each in stored:
        tokens = each.subject.split(".")
        if len(tokens) != 3 or not tokens[2].isdecimal():
            continue
        try:
            template = StoredTemplate.FromString(each.body).template
        except DecodeError:
            continue
        plans[tokens[1], int(tokens[2])] = Plan(template)
    return plans
