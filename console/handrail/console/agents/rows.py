"""Agents as rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from handrail.console.flow.states import State
from handrail.v1.flow_service_pb2 import DivergenceCount
from handrail.v1.template_service_pb2 import AgentUsage


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as its durable consumer shows it."""

    name: str
    durable: str
    state: State
    pending: int
    in_hand: int
    flow_types: Sequence[str]


def agents(found: Iterable[AgentUsage]) -> list[AgentRow]:
    """The agents; those with work that nobody takes first, then those with the most work."""
    rows = [
        AgentRow(each.agent, each.durable, _state(each), each.pending, each.ack_pending, _types(each.filter_subjects))
        for each in found
    ]
    return sorted(rows, key=lambda row: (row.state.tone != "bad", -row.pending, row.name))


def divergences(counts: Iterable[DivergenceCount]) -> dict[str, int]:
    """How many divergences each agent has."""
    found: dict[str, int] = {}
    for each in counts:
        found[each.agent] = found.get(each.agent, 0) + each.count
    return found


def _state(usage: AgentUsage) -> State:
    if not usage.filter_subjects:
        return State("○", "Not set up", "wait")
    if usage.ack_pending:
        return State("▸", "At work", "run")
    if usage.waiting_pulls:
        return State("✓", "Listens", "muted")
    return State("!", "Nobody listens", "bad") if usage.pending else State("○", "Nobody listens", "wait")


def _types(subjects: Iterable[str]) -> list[str]:
    """The flow types of subjects such as `flow.refund.*.event.…`."""
    return sorted({each.split(".")[1] for each in subjects if each.count(".")})
