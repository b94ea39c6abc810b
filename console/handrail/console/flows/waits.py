"""What a flow of a list waits for, in a few words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from handrail.v1.flow_service_pb2 import Expectation, Flow


@dataclass(frozen=True, slots=True)
class Wait:
    """The first thing that a flow waits for: people before agents. `rest` is how many more there are."""

    text: str
    due: datetime | None
    is_late: bool
    rest: int


def wait_of(flow: Flow, now: datetime) -> Wait | None:
    """What a flow waits for; None if lists don't tell, or it is over."""
    if not flow.expectations:
        return None
    people = [each for each in flow.expectations if not each.by_agent]
    first = min(people or flow.expectations, key=_due_first)
    due = _due(first)
    return Wait(_text(first), due, due is not None and due < now, len(flow.expectations) - 1)


def _text(expectation: Expectation) -> str:
    if expectation.by_agent:
        return f"{expectation.by_agent}: {expectation.step}"
    whom = " or ".join(expectation.by_roles) or "votes"
    return f"{whom}: {expectation.step}" if expectation.step else whom


def _due_first(expectation: Expectation) -> tuple[bool, float]:
    due = _due(expectation)
    return due is None, due.timestamp() if due else 0.0


def _due(expectation: Expectation) -> datetime | None:
    return expectation.due_time.ToDatetime(UTC) if expectation.HasField("due_time") else None
