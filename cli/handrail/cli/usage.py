"""The versions that flows run on and the agents that are live, summed over the pages of a coordinator's answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from handrail.cli.session import Session
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1.template_service_pb2 import (
    AgentUsage,
    GetTemplateUsageRequest,
    GetTemplateUsageResponse,
    UnboundedReason,
    VersionUsage,
)

_REASONS = {
    UnboundedReason.UNBOUNDED_REASON_ESCALATED: "waits for a person's answer",
    UnboundedReason.UNBOUNDED_REASON_WAITING_APPROVAL: "waits for an approval that never expires",
    UnboundedReason.UNBOUNDED_REASON_HALTED: "is on hold, or is being compensated",
    UnboundedReason.UNBOUNDED_REASON_OVERDUE: "is past its deadline",
}


@dataclass(frozen=True, slots=True)
class Running:
    """The flows that run on one version. `last_end` is when the last bounded flow is done or waits for a person;
    `unbounded` are some of the flows without a bound, with the reason."""

    active: bool
    deadline: timedelta
    flows: int = 0
    oldest_start: datetime | None = None
    last_end: datetime | None = None
    unbounded_flows: int = 0
    unbounded: tuple[tuple[str, str], ...] = ()

    def plus(self, page: VersionUsage) -> Running:
        """Adds the counts of another page."""
        return Running(
            active=page.active,
            deadline=page.deadline.ToTimedelta(),
            flows=self.flows + page.running_flows,
            oldest_start=min([*_known(self.oldest_start), *_given(page, "oldest_start_time")], default=None),
            last_end=max([*_known(self.last_end), *_given(page, "latest_deadline")], default=None),
            unbounded_flows=self.unbounded_flows + page.unbounded_flows,
            unbounded=(*self.unbounded, *((each.flow_id, _REASONS.get(each.reason, "")) for each in page.examples)),
        )

    def drained(self) -> str:
        """Says how many flows run, and when the last of them will have drained, in one to three sentences."""
        if not self.flows:
            said = "no flow runs"
        else:
            said = f"{self.flows:,} {'flow runs' if self.flows == 1 else 'flows run'}"
            if self.oldest_start:
                said += f", the oldest since {_time(self.oldest_start)}"
            if self.last_end:
                said += f"; by {_time(self.last_end)} the last one is done or waits for a person"
        if self.unbounded_flows:
            named = ", ".join(f"{flow_id} {reason}" for flow_id, reason in self.unbounded[:3])
            rest = self.unbounded_flows - min(3, len(self.unbounded))
            said += f"; {self.unbounded_flows} without a bound: {named}" + (f", and {rest} more" if rest else "")
        if self.active:
            within = _hours(self.deadline)
            said += f"; new flows still start with it: once another version is active, it drains within {within}"
        return said


@dataclass(frozen=True, slots=True)
class Usage:
    """What a coordinator reports. `stopped_early` is set if there were more flows than the limit."""

    address: str
    time: datetime
    versions: dict[tuple[str, int], Running]
    agents: dict[str, AgentUsage]
    examined: int
    stopped_early: bool

    def running(self, versions: Iterable[tuple[str, int]]) -> int:
        """Returns how many flows run on these versions."""
        return sum(self.versions[each].flows for each in set(versions) if each in self.versions)


def read_usage(asked: Session, *, max_flows: int, scan: bool) -> Usage:
    """Reads what the index counts, or with `scan` page by page until `max_flows` flows were examined."""
    versions: dict[tuple[str, int], Running] = {}
    agents: dict[str, AgentUsage] = {}
    examined, token, first = 0, "", True
    while (first or token) and examined < max_flows:
        request = GetTemplateUsageRequest(page_token=token, page_size=min(500, max_flows - examined), scan=scan)
        page: GetTemplateUsageResponse = asked.client.call(asked.client.templates.GetTemplateUsage, request)
        for each in page.versions:
            key = (each.name, each.version)
            versions[key] = versions.get(key, Running(each.active, timedelta())).plus(each)
        agents.update((each.agent, each) for each in page.agents)
        examined, token, first = examined + page.flows_examined, page.next_page_token, False
    return Usage(asked.client.address, datetime.now(UTC), versions, agents, examined, bool(token))


def agent_line(usage: AgentUsage) -> str:
    """Describes an agent's durable in a few words."""
    if not usage.filter_subjects:
        return f"durable {usage.durable} does not exist yet"
    live = "live" if usage.waiting_pulls else "no worker asks for work"
    said = f"{live}; {usage.pending:,} messages pending, {usage.ack_pending:,} unsettled"
    if usage.HasField("oldest_unsettled_time"):
        said += f", the oldest since {_time(from_timestamp(usage.oldest_unsettled_time))}"
    said += f" (durable {usage.durable})"
    for each in usage.workers.fits:
        if each.unfit and not each.fitting:
            said += f"; its workers say that none of them fits {each.flow_type}@{each.version}"
    if usage.workers.stuck_handlers:
        said += f"; handlers that do not end, say its workers: {usage.workers.stuck_handlers:,}"
    return said


def _given(page: VersionUsage, field: Literal["oldest_start_time", "latest_deadline"]) -> list[datetime]:
    return [from_timestamp(getattr(page, field))] if page.HasField(field) else []


def _known(moment: datetime | None) -> list[datetime]:
    return [] if moment is None else [moment]


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:,.3g} h" if span >= timedelta(hours=1) else f"{span.total_seconds():g} s"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
