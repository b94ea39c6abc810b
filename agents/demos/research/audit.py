"""The audit: compares every report with the plan, and with figures that were counted in another way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from demos.research.expected import Expected
from demos.research.plan import Plan
from demos.research.reports import Reports
from handrail.v1.decision_pb2 import FlowStatus
from research.v1.research_pb2 import ReportWritten

Figures = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The results of a run: the ends of its flows, the reports according to the flows, and the existing reports."""

    statuses: Mapping[str, FlowStatus.ValueType]
    written: Mapping[str, ReportWritten]
    reports: Reports

    def totals(self, name: str) -> Figures:
        """The sums in a report; fields of 0 are omitted."""
        return cast("Figures", self.reports.figures(self.written[name].report)["totals"])


def audit(expected: Mapping[str, Expected], plan: Plan, evidence: Evidence) -> Iterator[str]:
    """Returns a line for each fault."""
    for name, each in expected.items():
        yield from (f"{name}: {complaint}" for complaint in _audit_one(name, each, plan, evidence))
    stray = set(evidence.reports.names()) - {written.report for written in evidence.written.values()}
    yield from (f"no flow says that it wrote {name}" for name in sorted(stray))


def _audit_one(name: str, expected: Expected, plan: Plan, evidence: Evidence) -> Iterator[str]:
    status = evidence.statuses.get(name)
    if status != FlowStatus.FLOW_STATUS_COMPLETED:
        yield f"it is {'missing' if status is None else FlowStatus.Name(status)}"
        return
    written = evidence.written[name]
    if written.refused == plan.votes[name].approve:
        yield f"the report says {'refused' if written.refused else 'approved'}, but the maintainer said otherwise"
    totals = evidence.totals(name)
    if totals.get("problems"):
        return  # a file that can't be measured can't be counted in another way either
    for what in ("files", "lines", "functions", "decisions"):
        counted, reported = getattr(expected, what), totals.get(what, 0)
        if counted != reported:
            yield f"the report has {reported:,} {what}, but there are {counted:,}"
