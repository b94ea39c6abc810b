"""What needs a person, the longest wait first; counts, agents and broken parts as rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handrail.console.agents.rows import agents, divergences, words
from handrail.console.overview import needs, tables
from handrail.console.overview.sparkline import sparklines
from handrail.console.quarantine.rows import hex_lines
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.act_pb2 import PendingAct
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.flow_service_pb2 import DivergenceCount, Expectation, Flow, FlowCount, FlowHour
from handrail.v1.quarantine_service_pb2 import QuarantinedMessage
from handrail.v1.template_service_pb2 import AgentUsage, AgentWorkers, VersionFit

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_the_longest_wait_is_first_whatever_waits() -> None:
    flow = Flow(flow_id="a" * 32, flow_type="refund", update_time=timestamp(at(3)))
    votes = Expectation(what="approval of payments.v1.Granted", step="grant", subject_id=f"refund.{'b' * 32}.c")
    work = Expectation(what="the outcome of step pay", by_agent="ledger", step="pay")
    asked = Flow(flow_id="b" * 32, update_time=timestamp(at(1)), expectations=[votes, work], key="CB-1")
    act = PendingAct(flow_type="refund", by="olga", summary="activate refund v2", request_time=timestamp(at(2)))
    found = needs.oldest_first(needs.stuck([flow]), needs.waiting([asked]), needs.acts([act]))
    assert [each.state.word for each in found] == ["Approval", "Second person", "Stuck"]
    assert found[0].address == f"/approvals?view=all&approval=refund.{'b' * 32}.c"
    assert (found[0].key, found[0].why) == ("CB-1", "Granted of step grant waits for votes")
    assert found[1].address == "/templates/refund"
    assert [each.is_id for each in found] == [True, False, True]


def test_an_act_on_the_policy_has_a_name_and_leads_somewhere() -> None:
    (found,) = needs.acts([PendingAct(by="olga", summary="set the policy", request_time=timestamp(at(1)))])
    assert (found.name, found.address) == ("policy", "/templates")


def test_each_quarantine_is_one_line_as_old_as_its_oldest_message() -> None:
    kept = [
        QuarantinedMessage(agent=agent, time=timestamp(at(minute)), message=Quarantined(detail="broken"))
        for agent, minute in (("", 5), ("ledger", 1), ("ledger", 2))
    ]
    assert [(each.name, each.since) for each in needs.quarantined(kept)] == [("coordinator", at(5)), ("ledger", at(1))]


def test_statuses_that_no_flow_has_are_left_out() -> None:
    status = FlowStatus
    found = tables.counts(
        [
            FlowCount(flow_type="refund", status=status.FLOW_STATUS_FAILED, flows=5),
            FlowCount(flow_type="audit", status=status.FLOW_STATUS_ESCALATED, flows=1),
        ],
        {},
    )
    assert [each.name for each in found.columns] == ["ESCALATED", "FAILED"]
    assert [(row.flow_type, row.flows) for row in found.rows] == [("audit", [1, 0]), ("refund", [0, 5])]


def test_an_agent_with_work_that_nobody_takes_is_first() -> None:
    subjects = ["flow.refund.*.event.x", "flow.audit.*.event.y"]
    found = agents(
        [
            AgentUsage(agent="idle", filter_subjects=subjects, waiting_pulls=1),
            AgentUsage(agent="busy", filter_subjects=subjects, pending=9, ack_pending=2, waiting_pulls=1),
            AgentUsage(agent="gone", filter_subjects=subjects, pending=1),
            AgentUsage(agent="new"),
        ]
    )
    assert [(row.name, row.state.word) for row in found] == [
        ("gone", "Nobody listens"),
        ("busy", "At work"),
        ("idle", "Listens"),
        ("new", "Not set up"),
    ]
    assert found[0].flow_types == ["audit", "refund"]


def test_what_workers_report_is_a_line_for_each_thing_that_somebody_should_look_at() -> None:
    fits = [
        VersionFit(flow_type="audit", version=1, fitting=2),
        VersionFit(flow_type="refund", version=1, unfit=1, problem="no handler"),
        VersionFit(flow_type="refund", version=2, fitting=1, unfit=2, problem="another type"),
    ]
    workers = AgentWorkers(live=3, fits=fits, stuck_handlers=2, stuck=["handler a", "handler b"])
    found = words([AgentUsage(agent="ledger", workers=workers), AgentUsage(agent="fine", workers=AgentWorkers(live=1))])
    assert [(each.agent, each.state.word, each.what, each.text) for each in found] == [
        ("ledger", "Stuck", "2 handlers do not end", "handler a; handler b"),
        ("ledger", "None fits", "refund v1: 0 of 1 fit", "no handler"),
        ("ledger", "Some fit", "refund v2: 1 of 3 fit", "another type"),
    ]


def test_divergences_are_added_up_by_agent() -> None:
    counts = [DivergenceCount(agent="a", count=2), DivergenceCount(agent="b", count=1), DivergenceCount(agent="a")]
    assert divergences(counts) == {"a": 2, "b": 1}


def test_a_sparkline_says_in_words_what_its_bars_show() -> None:
    hours = [
        FlowHour(flow_type="refund", hour=timestamp(NOON - timedelta(hours=back)), began=began, failed=failed)
        for back, began, failed in ((0, 2, 1), (3, 1_200, 0), (23, 1, 0), (24, 7, 7), (-1, 9, 9))
    ]
    found = sparklines(hours, at(59))
    line = found["refund"]
    assert (line.began, line.failed) == (1_203, 1), "what is older, or of a clock ahead of ours, is left out"
    assert line.text == (
        "1,203 began in 24 hours, most of them, 1,200, in the hour from 09:00 UTC; "
        "1 failed, the last in the hour from 12:00 UTC"
    )
    assert line.began_bars == "M0 20v-1h3v1zM80 20v-20h3v20zM92 20v-1h3v1z"
    assert line.failed_bars == "M92 20v-3h3v3z", "high enough to be seen"
    table = tables.counts([FlowCount(flow_type="audit", status=FlowStatus.FLOW_STATUS_FAILED, flows=5)], found)
    assert [(row.flow_type, row.flows, row.lately) for row in table.rows] == [
        ("audit", [5], None),
        ("refund", [0], line),
    ]
    assert table.tells_lately


def test_a_type_of_which_flows_only_failed_lately_has_a_sparkline_too() -> None:
    line = sparklines([FlowHour(flow_type="refund", hour=timestamp(NOON), failed=3)], at(0))["refund"]
    assert (line.began_bars, line.failed_bars) == ("", "M92 20v-20h3v20z")
    assert line.text == "0 began in 24 hours; 3 failed, the last in the hour from 12:00 UTC"


def test_only_broken_parts_are_named() -> None:
    health = {"handrail.v1.FlowService": False, "handrail.part.broker": False, "handrail.part.stream.FLOW": True}
    assert tables.broken(health) == ["broker"]


def test_bytes_are_lines_of_hex_with_their_characters() -> None:
    assert hex_lines(b"<b>\x00\x1b[31m" + b"x" * 9) == [
        f"0000  {'3c 62 3e 00 1b 5b 33 31 6d 78 78 78 78 78 78 78':48} <b>..[31mxxxxxxx",
        f"0010  {'78 78':48} xx",
    ]
