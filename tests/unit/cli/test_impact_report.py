"""How the impact of a change is told: when flows have drained, and tables that nothing in a template can break."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from handrail.analysis.compat.change import Change, Level
from handrail.analysis.compat.impact import Hit, Impact, Known, Part, Reading
from handrail.cli.impact_report import Report, as_markdown, as_text
from handrail.cli.usage import Running, Usage, agent_line
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.template_pb2 import FlowTemplate
from handrail.v1.template_service_pb2 import (
    AgentUsage,
    AgentWorkers,
    UnboundedFlow,
    UnboundedReason,
    VersionFit,
    VersionUsage,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def page(flows: int, *, first: int = 0, last: int = 0, active: bool = False, unbounded: int = 0) -> VersionUsage:
    """What one page counts: flows that began and end so many hours after noon."""
    held = UnboundedReason.UNBOUNDED_REASON_ESCALATED
    return VersionUsage(
        name="refund",
        version=1,
        active=active,
        deadline=Duration(seconds=86_400),
        running_flows=flows,
        oldest_start_time=timestamp(NOON + first * HOUR) if flows else None,
        latest_deadline=timestamp(NOON + last * HOUR) if flows > unbounded else None,
        unbounded_flows=unbounded,
        examples=[UnboundedFlow(flow_id=f"f{number}", reason=held) for number in range(unbounded)],
    )


def running(*pages: VersionUsage) -> Running:
    whole = Running(False, timedelta())
    for each in pages:
        whole = whole.plus(each)
    return whole


def test_pages_add_up_to_the_oldest_begin_and_the_last_end() -> None:
    whole = running(page(2, first=3, last=27), page(0), page(1, first=1, last=25))
    assert whole.drained() == (
        "3 flows run, the oldest since 2026-03-01 13:00:00Z; "
        "by 2026-03-02 15:00:00Z the last one is done or waits for a person"
    )


def test_a_version_without_flows_has_drained_unless_new_ones_begin_with_it() -> None:
    assert running(page(0)).drained() == "no flow runs"
    assert running(page(0, active=True)).drained() == (
        "no flow runs; new flows still start with it: once another version is active, it drains within 24 h"
    )


def test_flows_without_a_bound_are_counted_and_some_are_named() -> None:
    whole = running(page(5, unbounded=5))
    assert whole.drained() == (
        "5 flows run, the oldest since 2026-03-01 12:00:00Z; 5 without a bound: f0 waits for a person's answer, "
        "f1 waits for a person's answer, f2 waits for a person's answer, and 2 more"
    )


def report(usage: Usage | None) -> Report:
    change = Change("shop.v1.Asked", "who", "FIELD_REMOVED", Level.BREAKING_WIRE, "shop.proto", "field 2 is gone")
    known = Known(FlowTemplate(name="refund", version=1), "a|b.yaml")
    part = Part("asking", "ask", "shop.v1.Asked")
    reading = Reading(
        "gate", "look", "event.who == 'a' ||\n\tevent.who < 'c'", '"event.who": line 1: no who; line 2: no who'
    )
    hit = Hit(known, ("shop.v1.Asked",), (), (part,), (), (), (), ("look",), (reading,))
    return Report("main", [Impact(change, ("shop.v1.Asked",), (), (hit,), False)], [known], usage, [])


def test_nothing_in_a_template_breaks_a_table() -> None:
    rows = [line for line in as_markdown(report(None)) if line.startswith("| refund@1")]
    assert rows == [
        "| refund@1 (a\\|b.yaml) | agent asking | emits shop.v1.Asked in step ask |",
        "| refund@1 (a\\|b.yaml) | gate look | guards it |",
        "| refund@1 (a\\|b.yaml) | gate look | reads it: event.who == 'a' \\|\\|\\n\\tevent.who &lt; 'c'; "
        "no longer compiles: line 1: no who |",
    ]


def test_without_a_coordinator_running_flows_are_said_not_to_be_known() -> None:
    assert (
        "1 breaking, 0 tightened, 0 compatible; affected: 1 agent, 1 template version, running flows unknown"
        in next(as_text(report(None)))
    )


def test_with_a_coordinator_they_are_counted() -> None:
    usage = Usage("a:1", NOON, {("refund", 1): running(page(7, last=1))}, {}, 7, False)
    lines = list(as_text(report(usage)))
    assert lines[0].endswith("affected: 1 agent, 1 template version, 7 running flows")
    assert any(line.strip().startswith("refund@1: 7 flows run") for line in lines)


def test_an_agent_is_said_to_be_late_and_unfit_but_not_in_the_words_of_its_workers() -> None:
    fits = [VersionFit(flow_type="refund", version=3, unfit=2, problem="[x](http://evil)"), VersionFit(fitting=1)]
    usage = AgentUsage(
        durable="agent-ledger",
        filter_subjects=["flow.refund.>"],
        pending=1_200,
        oldest_unsettled_time=timestamp(NOON),
        workers=AgentWorkers(live=2, fits=fits, stuck_handlers=1, stuck=["http://evil"]),
    )
    assert agent_line(usage) == (
        "no worker asks for work; 1,200 messages pending, 0 unsettled, the oldest since 2026-03-01 12:00:00Z "
        "(durable agent-ledger); its workers say that none of them fits refund@3; "
        "handlers that do not end, say its workers: 1"
    )
