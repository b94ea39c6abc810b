"""What the page of a flow is made of: times, amounts, the timeline, messages, the graph."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handrail.console.flow import events, graph, states
from handrail.console.flow.money import amount, only_amount
from handrail.console.flow.proposals import fields
from handrail.console.flow.timeline import WIDTH, timeline
from handrail.console.web.console import local_path
from handrail.console.web.moments import distance, exactly, lasting, moment, short_id
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus, HaltMode
from handrail.v1.event_pb2 import Kind, RecordedEvent
from handrail.v1.template_pb2 import Approvers, FlowTemplate, Gate, Step

START = datetime(2026, 11, 28, 10, 2, tzinfo=UTC)


def seconds(number: float) -> datetime:
    return START + timedelta(seconds=number)


@pytest.mark.parametrize(
    "span, text",
    [
        (0.024, "24 ms"),
        (0.84, "840 ms"),
        (1.24, "1.2 s"),
        (12, "12 s"),
        (3_120, "52 min"),
        (11_340, "3 h 9 min"),
        (7_200, "2 h"),
        (187_200, "2 d 4 h"),
        (172_800, "2 d"),
        (-5, "0 ms"),
    ],
)
def test_a_duration_has_its_two_largest_units(span: float, text: str) -> None:
    assert lasting(timedelta(seconds=span)) == text


def test_a_time_is_as_short_as_it_can_be() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert moment(START, now) == "10:02"
    assert moment(START - timedelta(days=1), now) == "27 Nov 10:02"
    assert moment(START - timedelta(days=365), now) == "28 Nov 2025 10:02"
    assert exactly(START) == "2026-11-28 10:02:00 UTC"
    assert distance(START, now) == "1 h 58 min ago"


def test_an_id_is_shortened() -> None:
    assert short_id("7f3a" + "0" * 26 + "c2") == "7f3a…c2"
    assert short_id("short") == "short"


@pytest.mark.parametrize(
    "value, text",
    [
        ({"currencyCode": "EUR", "units": "1240"}, "1,240.00 EUR"),
        ({"currencyCode": "EUR", "units": "1", "nanos": 500_000_000}, "1.50 EUR"),
        ({"currencyCode": "EUR", "units": "-1", "nanos": -5_000_000}, "-1.005 EUR"),
        ({"currencyCode": "JPY"}, "0.00 JPY"),
        ({"currencyCode": "EUR", "units": "NaN"}, ""),
        ({"currencyCode": "EUR", "units": "many"}, ""),
        ({"currencyCode": "EUR", "units": "1", "more": 1}, ""),
        ({"units": "1"}, ""),
        ("1240 EUR", ""),
    ],
)
def test_an_amount_has_its_currency(value: object, text: str) -> None:
    assert amount(value) == text


def test_of_two_amounts_none_is_the_one() -> None:
    euro = {"currencyCode": "EUR", "units": "1"}
    assert only_amount({"a": euro, "b": "x"}) == "1.00 EUR"
    assert only_amount({"a": euro, "b": euro}) == ""


def test_the_fields_of_a_proposal_are_texts() -> None:
    shown = dict(fields({"@type": "x", "amount": {"currencyCode": "EUR", "units": "1"}, "n": [1, 2], "s": "text"}))
    assert shown == {"amount": "1.00 EUR", "n": "[1, 2]", "s": "text"}


TEMPLATE = FlowTemplate(
    name="refund",
    version=3,
    starts_with=["a.Begun"],
    completes_with=["a.Told"],
    steps=[
        Step(name="grant", agent="refunds", after=["a.Begun"], emits=["a.Granted"]),
        Step(name="pay", agent="ledger", after=["a.Granted"], emits=["a.Paid"]),
        Step(name="notify", agent="notification", after=["a.Paid"], emits=["a.Told"]),
    ],
    gates=[Gate(name="large", on="a.Granted", approvers=Approvers(roles=["finance"], quorum=2))],
)


def flow(status: FlowStatus.ValueType = FlowStatus.FLOW_STATUS_RUNNING, *, updated: float = 100) -> pb.Flow:
    found = pb.Flow(flow_type="refund", template_version=3, status=status)
    found.start_time.FromDatetime(START)
    found.update_time.FromDatetime(seconds(updated))
    return found


def add_run(
    found: pb.Flow, step: str, status: pb.StepRunStatus.ValueType, began: float, ended: float | None, **more: Any
) -> None:
    run = found.step_runs.add(step=step, agent="a", status=status, **more)
    run.trigger_time.FromDatetime(seconds(began))
    if ended is not None:
        run.end_time.FromDatetime(seconds(ended))


def add_approval(found: pb.Flow, *, asked: float, expires: float) -> pb.Approval:
    approval = found.approvals.add(step="grant", type="a.Granted", status=pb.APPROVAL_STATUS_PENDING)
    approval.gates.add(gate="large", roles=["finance"], quorum=2)
    approval.request_time.FromDatetime(seconds(asked))
    approval.expire_time.FromDatetime(seconds(expires))
    return approval


def test_a_bar_lies_where_and_as_long_as_the_step_ran() -> None:
    found = flow(FlowStatus.FLOW_STATUS_COMPLETED)
    add_run(found, "grant", pb.STEP_RUN_STATUS_DONE, 25, 75)
    [row] = timeline(found, TEMPLATE, seconds(500)).rows
    assert row.bar is not None
    assert (row.bar.start, row.bar.width, row.bar.look) == (WIDTH // 4, WIDTH // 2, "ran")
    assert row.took == "50 s"


def test_a_step_at_work_reaches_to_the_present() -> None:
    found = flow()
    add_run(found, "grant", pb.STEP_RUN_STATUS_OWED, 100, None, attempt=2, max_attempts=3)
    row = timeline(found, TEMPLATE, seconds(200)).rows[0]
    assert row.bar is not None
    assert (row.bar.start, row.bar.width, row.bar.look, row.note) == (500, 500, "waits", "attempt 2 of 3")


def test_a_moment_is_still_seen_and_stays_on_the_axis() -> None:
    found = flow(FlowStatus.FLOW_STATUS_COMPLETED, updated=1_000)
    add_run(found, "grant", pb.STEP_RUN_STATUS_DONE, 1_000, 1_000)
    [row] = timeline(found, TEMPLATE, seconds(2_000)).rows
    assert row.bar is not None
    assert row.bar.width > 0
    assert row.bar.start + row.bar.width <= WIDTH


def test_a_near_deadline_is_on_the_axis_and_a_far_one_is_not() -> None:
    near, far = flow(), flow()
    add_approval(near, asked=0, expires=200)
    add_approval(far, asked=0, expires=100_000)
    shown = timeline(near, TEMPLATE, seconds(100))
    assert (shown.end, shown.present) == (seconds(200), WIDTH // 2)
    hidden = timeline(far, TEMPLATE, seconds(100))
    assert (hidden.end, hidden.present, hidden.rows[0].due) == (seconds(100), None, None)


def test_an_approval_shows_its_votes_and_how_many_there_are() -> None:
    found = flow()
    approval = add_approval(found, asked=0, expires=100_000)
    approval.votes.add(voter="bob", approve=True).time.FromDatetime(seconds(50))
    row = timeline(found, TEMPLATE, seconds(100)).rows[0]
    assert (row.name, row.agent, row.took, row.votes) == ("large", "finance", "1/2", (WIDTH // 2,))
    assert row.is_person


def test_what_has_not_begun_says_what_it_waits_for() -> None:
    found = flow()
    add_run(found, "grant", pb.STEP_RUN_STATUS_DONE, 0, 1)
    add_approval(found, asked=1, expires=100_000)
    assert {row.name: row.next for row in timeline(found, TEMPLATE, seconds(100)).rows if row.next} == {
        "pay": "next, once released",
        "notify": "after pay",
    }


def test_nothing_comes_next_in_a_flow_that_is_over_or_halted() -> None:
    over, halted = flow(FlowStatus.FLOW_STATUS_FAILED), flow()
    halted.halt_mode = HaltMode.HALT_MODE_HOLD
    assert timeline(over, TEMPLATE, seconds(100)).rows == ()
    assert timeline(halted, TEMPLATE, seconds(100)).rows == ()
    assert timeline(flow(), None, seconds(100)).rows == ()


def test_a_flow_of_no_length_has_an_axis() -> None:
    shown = timeline(flow(FlowStatus.FLOW_STATUS_COMPLETED, updated=0), TEMPLATE, START)
    assert shown.end > shown.start


def recorded(
    sequence: int, type_: str = "a.Begun", *, event_id: str = "", cause: str = "", **more: Any
) -> RecordedEvent:
    found = RecordedEvent(sequence=sequence, type=type_, kind=Kind.KIND_EVENT, **more)
    found.event.event_id = event_id or f"{sequence:032x}"
    found.event.causation_id = cause
    found.time.FromDatetime(seconds(sequence))
    return found


def opened(_: RecordedEvent) -> dict[str, object]:
    return {"@type": "t", "text": "\u202e<b>", "long": "x" * 500}


def test_a_row_has_a_preview_and_says_why_a_message_is_void() -> None:
    [row] = events.rows([recorded(7, void_reason="it came too late")], opened)
    assert (row.sequence, row.kind, row.type, row.void) == (7, "event", "Begun", "it came too late")
    assert row.preview.startswith('{"text": "\\u202e<b>"')
    assert len(row.preview) <= 120


def test_a_message_is_shown_whole_up_to_a_limit() -> None:
    shown = events.detail(recorded(7), opened)
    assert "".join(shown.payload).count("x") >= 500
    assert not shown.is_cut
    assert events.detail(recorded(7), lambda _: {"long": "x" * 50_000}).is_cut


def test_a_message_stands_below_its_cause() -> None:
    found = [
        recorded(1, event_id="a" * 32),
        recorded(2, event_id="b" * 32, cause="a" * 32),
        recorded(3, event_id="c" * 32),
        recorded(4, event_id="d" * 32, cause="b" * 32),
    ]
    assert [(row.sequence, row.depth) for row in events.tree(found, opened)] == [(1, 0), (2, 1), (4, 2), (3, 0)]


def test_a_circle_of_causes_hides_no_message_and_ends() -> None:
    found = [recorded(1, event_id="a" * 32, cause="b" * 32), recorded(2, event_id="b" * 32, cause="a" * 32)]
    found.append(recorded(3, event_id="c" * 32, cause="c" * 32))
    assert [row.sequence for row in events.tree(found, opened)] == [1, 2, 3]


def test_a_long_chain_of_causes_is_not_deeper_than_a_page() -> None:
    chain = [recorded(n, event_id=f"{n:032x}", cause=f"{n - 1:032x}") for n in range(1, 1_001)]
    found = events.tree(chain, opened)
    assert len(found) == 1_000
    assert max(row.depth for row in found) == 12


def test_a_message_that_can_not_be_parsed_is_a_row() -> None:
    broken = RecordedEvent(sequence=9, void_reason="it is not an event")
    [row] = events.rows([broken], lambda _: {})
    assert (row.kind, row.void, row.preview) == ("unspecified", "it is not an event", "")


def test_the_graph_marks_what_ran_what_waits_and_what_was_not_reached() -> None:
    found = flow(FlowStatus.FLOW_STATUS_WAITING_APPROVAL)
    add_run(found, "grant", pb.STEP_RUN_STATUS_DONE, 0, 1)
    add_approval(found, asked=1, expires=100)
    drawn = graph.graph_of_flow(TEMPLATE, found, [recorded(1), recorded(2, "a.Granted")])
    assert drawn.count('<g class="ran">') == 4  # start, both messages, grant
    assert drawn.count('<g class="waits">') == 1
    assert '<g class="unreached">' in drawn


def test_a_graph_needs_no_style_and_escapes_its_text() -> None:
    hostile = FlowTemplate(name="</title><script>alert(1)</script>\u202e", starts_with=["a.B"], version=1)
    drawn = graph.graph(hostile)
    assert "<style" not in drawn
    assert "style=" not in drawn
    assert "<script" not in drawn
    assert "\u202e" not in drawn


def test_states_have_glyph_word_and_tone() -> None:
    for status in FlowStatus.values():
        found = states.of_flow(status)
        assert found.glyph
        assert found.word
        assert found.tone in {"run", "wait", "bad", "undo", "muted"}
    assert states.of_run(99) == states.UNKNOWN  # type: ignore[arg-type]
    assert states.of_kind(99) == "unknown"  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x", "//e", "/\\e", "https://e", "/a\nb", "/ü", "/" + "x" * 3_000])
def test_a_path_that_could_lead_elsewhere_is_the_start(text: str) -> None:
    assert local_path(text) == "/"


def test_a_path_of_the_console_is_kept() -> None:
    assert local_path("/flows/refund/CB-2041?tab=events") == "/flows/refund/CB-2041?tab=events"
