"""What needs a person, as one list, the oldest first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.console.flow.states import State
from handrail.v1.act_pb2 import PendingAct
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import Flow
from handrail.v1.quarantine_service_pb2 import QuarantinedMessage

STUCK = State("!", "Stuck", "bad")
OVERDUE = State("◷", "Overdue", "wait")
APPROVAL = State("◔", "Approval", "wait")
ACT = State("◑", "Second person", "wait")
QUARANTINE = State("✕", "Quarantine", "bad")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that needs a person. `since` is when it began to wait, as far as lists tell; `due` when that ends."""

    since: datetime
    state: State
    name: str
    flow_type: str
    address: str
    why: str
    due: datetime | None = None
    key: str = ""

    @property
    def is_id(self) -> bool:
        """Whether the name is a flow's id, of which pages show a part, or its key."""
        return len(self.name) == 32 and self.name in self.address


def stuck(found: Iterable[Flow]) -> Iterator[Need]:
    """Flows that wait for the answer to an escalation."""
    for flow in found:
        yield _of_flow(flow, STUCK, flow.status_reason or "a person must decide")


def overdue(found: Iterable[Flow]) -> Iterator[Need]:
    """Flows that are late."""
    for flow in found:
        yield _of_flow(flow, OVERDUE, flow.status_reason or "an answer or the flow is past its time")


def waiting(found: Iterable[Flow]) -> Iterator[Need]:
    """Flows whose proposals wait for votes: each proposal by itself."""
    for flow in found:
        for each in flow.expectations:
            if not each.by_agent and not each.by_roles:
                due = _time(each.due_time) if each.HasField("due_time") else None
                address = f"/approvals?view=all&approval={quote(each.subject_id)}"
                why = f"{each.what.rpartition('.')[2]} of step {each.step} waits for votes"
                since = _time(flow.update_time)
                yield Need(since, APPROVAL, flow.flow_id, flow.flow_type, address, why, due, flow.key)


def acts(found: Iterable[PendingAct]) -> Iterator[Need]:
    """Acts that another person has to confirm."""
    for each in found:
        name, address = _of_act(each)
        due = _time(each.expire_time) if each.HasField("expire_time") else None
        why = f"{each.by} asked: {each.summary}"
        yield Need(_time(each.request_time), ACT, name, each.flow_type, address, why, due)


def _of_act(act: PendingAct) -> tuple[str, str]:
    """What an act is about, and its address: a flow, a template, or the policy, which holds for all flows."""
    if act.flow_id:
        return act.flow_id, f"/flows/{quote(act.flow_id)}"
    return (act.flow_type, f"/templates/{quote(act.flow_type)}") if act.flow_type else ("policy", "/templates")


def quarantined(found: Iterable[QuarantinedMessage]) -> Iterator[Need]:
    """Messages that broke their contract: one line for each quarantine, as old as its oldest message."""
    oldest: dict[str, QuarantinedMessage] = {}
    for each in found:
        oldest.setdefault(each.agent, each)
    for agent, each in oldest.items():
        name = ErrorReason.Name(each.message.reason) if each.message.reason in ErrorReason.values() else "UNKNOWN"
        why = f"{name.removeprefix('ERROR_REASON_')}: {each.message.detail}"
        yield Need(_time(each.time), QUARANTINE, agent or "coordinator", "", "/quarantine", why)


def oldest_first(*kinds: Iterable[Need]) -> list[Need]:
    """All of them, the longest wait first."""
    return sorted((each for kind in kinds for each in kind), key=lambda need: need.since)


def _of_flow(flow: Flow, state: State, why: str) -> Need:
    address = f"/flows/{quote(flow.flow_id)}"
    return Need(_time(flow.update_time), state, flow.flow_id, flow.flow_type, address, why, key=flow.key)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
