"""Pictures of templates: what is drawn, that nothing lies on something else, and that no text is read as markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.analysis.chart.layout import GAP, Layout, Size, layout
from handrail.analysis.chart.mermaid import escaped, mermaid
from handrail.analysis.chart.model import Chart, Edge, Kind, Node, chart_of
from handrail.analysis.chart.svg import drawing, svg
from handrail.cli.templates import read_template
from handrail.v1 import template_pb2 as pb
from tests.support.random_templates import Spec, specs

ROOT = Path(__file__).parents[4]
REFUND = read_template(ROOT / "agents" / "demos" / "payments" / "refund.yaml")

SVG = "{http://www.w3.org/2000/svg}"


def edges(chart: Chart) -> set[tuple[str, str]]:
    return {(edge.source.rpartition(".")[2], edge.target.rpartition(".")[2]) for edge in chart.edges}


def test_the_refund_is_drawn_with_its_gate_and_both_its_ways() -> None:
    chart = chart_of(REFUND)
    assert edges(chart) == {
        ("start", "ChargebackReceived"),
        ("ChargebackReceived", "step enrich"),
        ("step enrich", "ChargebackEnriched"),
        ("ChargebackEnriched", "step grant"),
        ("step grant", "SmallRefundGranted"),
        ("step grant", "LargeRefundGranted"),
        ("SmallRefundGranted", "step pay"),
        ("LargeRefundGranted", "gate large_refund"),
        ("gate large_refund", "step pay"),
        ("gate large_refund", "ApprovalRefused"),
        ("ApprovalRefused", "step notify"),
        ("step pay", "RefundPaid"),
        ("RefundPaid", "step notify"),
        ("step notify", "CustomerNotified"),
        ("CustomerNotified", "completed"),
        ("SmallRefundGranted", "rule as_claimed"),
        ("gate large_refund", "rule as_claimed"),
        ("RefundPaid", "rule as_claimed"),
        ("rule as_claimed", "end held, a person is asked"),
        ("SmallRefundGranted", "rule granted_no_more"),
        ("gate large_refund", "rule granted_no_more"),
        ("rule granted_no_more", "end held, a person is asked"),
        ("RefundPaid", "rule paid_no_more"),
        ("rule paid_no_more", "end held, a person is asked"),
        ("start", "end a person is asked"),
        *((f"step {name}", "end effects undone") for name in ("enrich", "grant", "pay", "notify")),
        ("step pay", "end a person is asked"),
    }
    labels = {(edge.source, edge.target): edge.label for edge in chart.edges if edge.label}
    assert labels == {
        ("start", "end a person is asked"): "not done in time",
        ("gate large_refund", "event handrail.v1.ApprovalRefused"): "refused or no answer",
        **{
            (f"step {name}", "end effects undone"): "fails or takes too long"
            for name in ("enrich", "grant", "pay", "notify")
        },
        ("step pay", "end a person is asked"): "undo fails",
    }
    nodes = {node.key: node for node in chart.nodes}
    assert nodes["gate large_refund"] == Node(
        "gate large_refund",
        Kind.GATE,
        ("large_refund", "if event.amount.units >= 1000", "two people of finance", "in 4 h"),
        "event.amount.units >= 1000: two people of finance",
    )
    assert nodes["step pay"].lines == ("pay", "agent ledger", "30 s, 3 attempts", "can be undone in 30 s")
    assert (nodes["step pay"].kind, nodes["step notify"].kind) == (Kind.UNDOABLE, Kind.IRREVERSIBLE)
    aside = {edge.target for edge in chart.edges if edge.aside}
    rules = {"rule as_claimed", "rule granted_no_more", "rule paid_no_more"}
    assert aside - rules == {
        *("event handrail.v1.ApprovalRefused", "end held, a person is asked"),
        *("end effects undone", "end a person is asked"),
    }


@pytest.mark.parametrize(
    "on_failure, end",
    [
        (pb.FAILURE_ACTION_UNSPECIFIED, "a person is asked"),
        (pb.FAILURE_ACTION_ESCALATE, "a person is asked"),
        (pb.FAILURE_ACTION_COMPENSATE, "effects undone"),
        (pb.FAILURE_ACTION_FAIL, "failed"),
    ],
)
def test_the_way_of_a_step_that_fails_or_times_out_is_drawn(on_failure: pb.FailureAction.ValueType, end: str) -> None:
    template = pb.FlowTemplate(name="t", version=1, starts_with=["a.A"], completes_with=["a.B"])
    template.steps.add(name="do", agent="x", after=["a.A"], emits=["a.B"], on_failure=on_failure)
    assert Edge("step do", f"end {end}", aside=True, label="fails or takes too long") in chart_of(template).edges


@pytest.mark.parametrize(
    "on_expiry, ways",
    [
        (pb.EXPIRY_ACTION_UNSPECIFIED, {("end failed", "refused or no answer")}),
        (pb.EXPIRY_ACTION_REJECT, {("end failed", "refused or no answer")}),
        (pb.EXPIRY_ACTION_ESCALATE, {("end failed", "refused"), ("end a person is asked", "no answer")}),
        (pb.EXPIRY_ACTION_APPROVE, {("end failed", "refused")}),
        (pb.EXPIRY_ACTION_WAIT, {("end failed", "refused")}),
    ],
)
def test_the_way_of_a_proposal_without_an_answer_is_drawn(
    on_expiry: pb.ExpiryAction.ValueType, ways: set[tuple[str, str]]
) -> None:
    template = pb.FlowTemplate(name="t", version=1, starts_with=["a.A"], completes_with=["a.B"])
    gate = template.gates.add(name="g", on="a.B", on_expiry=on_expiry, on_reject=pb.REJECT_ACTION_FAIL)
    gate.expires_after.FromSeconds(60)
    edges = chart_of(template).edges
    assert {(edge.target, edge.label) for edge in edges if edge.source == "gate g" and edge.aside} == ways


def test_the_way_of_a_flow_that_misses_its_deadline_is_drawn() -> None:
    template = pb.FlowTemplate(name="t", version=1, starts_with=["a.A"], completes_with=["a.B"])
    assert not [edge for edge in chart_of(template).edges if edge.aside]
    template.deadline.FromSeconds(60)
    chart = chart_of(template)
    assert Edge("start", "end a person is asked", aside=True, label="not done in time") in chart.edges
    assert ">not done in time</text>" in svg(chart)
    assert 'class="label unreached"' in drawing(chart, {"end a person is asked": "unreached"})


def test_joins_rules_and_several_gates_are_drawn() -> None:
    template = pb.FlowTemplate(name="t", version=1, starts_with=["a.A"], completes_with=["a.C"])
    template.steps.add(name="split", agent="x", after=["a.A"], emits=["a.B"])
    join = template.steps.add(name="join", agent="x", emits=["a.C"])
    join.after_all.add(type="a.A")
    join.after_all.add(type="a.B", count="3")
    for name, on_reject in (("one", pb.REJECT_ACTION_COMPENSATE), ("two", pb.REJECT_ACTION_FAIL)):
        template.gates.add(name=name, on="a.C", on_reject=on_reject).approvers.roles.append("r")
    template.rules.add(name="rule", on=["a.B"], when="flow.counts['a.B'] > 1", then=1)
    chart = chart_of(template)
    assert edges(chart) >= {
        ("A", "join join"),
        ("B", "join join"),
        ("join join", "step join"),
        ("C", "gate one"),
        ("gate one", "gate two"),
        ("gate two", "completed"),
        ("gate one", "end effects undone"),
        ("gate two", "end failed"),
        ("B", "rule rule"),
        ("rule rule", "end held, a person is asked"),
    }
    rule = next(node for node in chart.nodes if node.kind is Kind.RULE)
    assert (rule.lines, rule.tip) == (("rule", "if flow.counts['B'] > 1"), "flow.counts['a.B'] > 1")
    assert Node("join join", Kind.JOIN, ("all of these", "3 of B"), "3 of B") in chart.nodes


def test_mermaid_of_a_small_template() -> None:
    template = pb.FlowTemplate(name="t", version=1, starts_with=["a.A"], completes_with=["a.B"])
    step = template.steps.add(name="do", agent="x", after=["a.A"], emits=["a.B"], effect=pb.EFFECT_IRREVERSIBLE)
    step.timeout.FromSeconds(5)
    drawn = mermaid(chart_of(template)).splitlines()
    assert [line for line in drawn if "classDef" not in line] == [
        "flowchart TD",
        '  n0(["t<br/>by a person"]):::start',
        '  n1(["A"]):::event',
        '  n2["do<br/>agent x<br/>5 s<br/>can\'t be undone"]:::irreversible',
        '  n3(["B"]):::event',
        '  n4(("a person is asked")):::ended',
        '  n5((("completed"))):::completed',
        "  n0 --> n1",
        "  n1 --> n2",
        "  n2 --> n3",
        '  n2 -.->|"fails or takes too long"| n4',
        "  n3 --> n5",
    ]


HOSTILE = 'x"];click n0 "javascript:alert(1)"\n<script>alert(1)</script>&lt;</text></svg>\x00\x1b[31m`%%{init}%%`]]>'


def hostile() -> pb.FlowTemplate:
    template = pb.FlowTemplate()
    template.CopyFrom(REFUND)
    template.name = template.steps[0].agent = template.gates[0].when = HOSTILE
    template.gates[0].approvers.roles[:] = [HOSTILE]
    template.steps[0].emits[:] = [HOSTILE]
    template.rules.add(name=HOSTILE, on=[HOSTILE], when=HOSTILE)
    return template


def test_nothing_in_a_template_is_read_as_svg() -> None:
    root = ElementTree.fromstring(svg(chart_of(hostile())))
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        *("svg", "title", "style", "marker", "path", "rect", "g", "text"),
    }
    assert any("<script>" in (each.text or "") for each in root.iter(f"{SVG}text"))


def test_nothing_in_a_template_is_read_as_mermaid() -> None:
    first, *lines = mermaid(chart_of(hostile())).splitlines()
    assert first == "flowchart TD"
    assert lines
    for line in lines:
        assert re.fullmatch(
            r'  n\d+[\[({]+"([\w .,:/+…\'-]|#\d+;|<br/>)*"[\])}]+:::\w+|  n\d+ -\.?-?>(\|"[a-z ]+"\|)? n\d+'
            r"|  classDef \w+ [\w:#, -]+",
            line,
        ), line


@given(st.text())
def test_escaped_text_has_no_sign_that_mermaid_reads(text: str) -> None:
    assert not set(escaped(text)) & set("\"'`<>&[](){}|\n\r%\\") - {"'"}


def overlap(drawn: Layout, sizes: Mapping[str, Size], one: str, other: str) -> bool:
    (ax, ay), (bx, by) = drawn.places[one], drawn.places[other]
    return (
        abs(ax - bx) < (sizes[one].width + sizes[other].width) / 2
        and abs(ay - by) < (sizes[one].height + sizes[other].height) / 2
    )


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_node_lies_on_another_and_no_edge_crosses_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 14))
    nodes = [f"n{number}" for number in range(count)]
    sizes = {node: Size(data.draw(st.integers(20, 300)), data.draw(st.integers(20, 120))) for node in nodes}
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), max_size=25, unique=True))
    drawn = layout(sizes, pairs)
    assert drawn.places.keys() == sizes.keys()
    assert not [pair for pair in combinations(nodes, 2) if overlap(drawn, sizes, *pair)]
    for node in nodes:
        x, y = drawn.places[node]
        assert sizes[node].width / 2 - 0.01 <= x <= drawn.size.width - sizes[node].width / 2 + 0.01
        assert sizes[node].height / 2 - 0.01 <= y <= drawn.size.height - sizes[node].height / 2 + 0.01
    assert drawn.ways.keys() == {(source, target) for source, target in pairs if source != target}
    for (source, target), way in drawn.ways.items():
        assert {way[0].x, way[-1].x} == {drawn.places[source].x, drawn.places[target].x}
        for start, end in pairwise(way):
            # Across only in the gap between two layers, where no node is.
            assert start.x == end.x or abs(start.y - end.y) == pytest.approx(GAP)
            for node in set(nodes) - {source, target}:
                (x, y), size = drawn.places[node], sizes[node]
                if start.x == end.x and abs(start.x - x) < size.width / 2:
                    assert max(start.y, end.y) <= y - size.height / 2 or min(start.y, end.y) >= y + size.height / 2


def test_what_hangs_on_one_thread_is_straight() -> None:
    sizes = {f"n{number}": Size(50 + 30 * (number % 3), 40) for number in range(12)}
    drawn = layout(sizes, list(pairwise(sizes)))
    assert len({round(place.x, 6) for place in drawn.places.values()}) == 1


@settings(max_examples=25, deadline=None)
@given(specs())
def test_every_template_can_be_drawn(spec: Spec) -> None:
    template = ParseDict(spec, pb.FlowTemplate())
    chart = chart_of(template)
    keys = {node.key for node in chart.nodes}
    assert all({edge.source, edge.target} <= keys for edge in chart.edges)
    root = ElementTree.fromstring(svg(chart))
    assert len(list(root.iter(f"{SVG}g"))) == len(chart.nodes)
    assert mermaid(chart).count(":::") == len(chart.nodes)
    assert Edge("start", f"event {template.starts_with[0]}") in chart.edges
