"""Flows by type and status, and the health of the coordinator, as rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from handrail.console.flow import states
from handrail.console.flow.states import State
from handrail.console.overview.sparkline import Sparkline
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import FlowCount

STATUSES = (
    FlowStatus.FLOW_STATUS_ESCALATED,
    FlowStatus.FLOW_STATUS_WAITING_APPROVAL,
    FlowStatus.FLOW_STATUS_COMPENSATING,
    FlowStatus.FLOW_STATUS_RUNNING,
    FlowStatus.FLOW_STATUS_FAILED,
)
"""The columns, what needs somebody first: flows that are open, and those that failed."""

_PART = "handrail.part."


@dataclass(frozen=True, slots=True)
class Column:
    """A status as the head of a column, and its name in a filter."""

    state: State
    name: str


@dataclass(frozen=True, slots=True)
class TypeRow:
    """The flows of one type, by column."""

    flow_type: str
    flows: Sequence[int]
    lately: Sparkline | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Open and failed flows by type and status; statuses that no flow has are left out."""

    columns: Sequence[Column]
    rows: Sequence[TypeRow]

    @property
    def tells_lately(self) -> bool:
        """Whether any flow began or failed lately."""
        return any(row.lately for row in self.rows)


def counts(found: Iterable[FlowCount], lately: Mapping[str, Sparkline]) -> Counts:
    """The table of flows by type and status, with what began `lately`, by type."""
    by_type: dict[str, dict[int, int]] = {name: {} for name in lately}
    for each in found:
        by_type.setdefault(each.flow_type, {})[each.status] = each.flows
    used = [status for status in STATUSES if any(status in row for row in by_type.values())]
    return Counts(
        [Column(states.of_flow(each), FlowStatus.Name(each).removeprefix("FLOW_STATUS_")) for each in used],
        [TypeRow(name, [row.get(each, 0) for each in used], lately.get(name)) for name, row in sorted(by_type.items())],
    )


def broken(health: Mapping[str, bool]) -> list[str]:
    """The parts of the installation that the coordinator finds broken, by what is served of each name."""
    return sorted(name.removeprefix(_PART) for name, serves in health.items() if name.startswith(_PART) and not serves)
