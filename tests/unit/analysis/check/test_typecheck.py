"""The flow type-check finds what would strand a flow, bypass a gate or surprise people, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from google.protobuf import text_format
from google.protobuf.duration_pb2 import Duration
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from buf.validate import validate_pb2
from handrail.analysis.check.typecheck import CODES, check
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import APPROVAL_REFUSED, Template, load_yaml
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction
from payments.v1 import payments_pb2
from tests.support.shop import set_of, shop_file
from tests.unit.mesh.template.test_yaml_reader import REFUND

SOUND = """\
name: order
version: 1
starts_with: [shop.v1.Asked]
started_by: [desk]
completes_with: [shop.v1.Told]
deadline: 3600s
steps:
  - name: split
    agent: planner
    after: [shop.v1.Asked]
    emits: [shop.v1.Planned]
    effect: NONE
    timeout: 5s
  - name: pick
    agent: picker
    after: [shop.v1.Planned, shop.v1.Missed]
    emits: [shop.v1.Picked, shop.v1.Missed]
    effect: UNDOABLE
    timeout: 5s
    undo: {timeout: 5s, emits: [shop.v1.PutBack]}
  - name: price
    agent: pricer
    after: [shop.v1.Planned]
    emits: [shop.v1.Priced]
    effect: NONE
    timeout: 5s
  - name: pack
    agent: packer
    after_all:
      - {type: shop.v1.Picked, count: "latest['shop.v1.Planned'].parts"}
      - {type: shop.v1.Priced}
    emits: [shop.v1.Packed]
    effect: NONE
    timeout: 5s
  - name: ship
    agent: shipper
    after: [shop.v1.Packed]
    emits: [shop.v1.Shipped]
    effect: IRREVERSIBLE
    timeout: 5s
  - name: tell
    agent: teller
    after: [shop.v1.Shipped, handrail.v1.ApprovalRefused]
    emits: [shop.v1.Told]
    effect: IRREVERSIBLE
    timeout: 5s
  - name: audit
    agent: auditor
    after: [shop.v1.Shipped]
    effect: NONE
    timeout: 5s
gates:
  - name: dear
    on: shop.v1.Packed
    when: event.price > 100
    approvers: {roles: [boss], not_the_requester: true, requester_field: by.name}
    expires_after: 60s
rules:
  - name: misses
    on: [shop.v1.Missed]
    when: flow.counts['shop.v1.Missed'] > 3
    then: ESCALATE
"""
MESSAGES = {
    "Asked": {"key": "string"},
    "Planned": {"parts": "uint32"},
    "Picked": {"part": "string"},
    "Missed": {"part": "string"},
    "Priced": {"price": "int64"},
    "Packed": {"price": "int64", "by": "shop.v1.Person", "names": "repeated string", "weight": "double"},
    "Shipped": {"parcel": "string"},
    "Told": {},
    "PutBack": {},
    "Person": {"name": "string", "age": "int64"},
    "Stray": {},
    "Counted": {"parts": "uint32"},
}


def bounded(most: int | None = 100) -> Contracts:
    """The contracts, with a rule for how many parts there can be."""
    file = shop_file(MESSAGES, imports=("buf/validate/validate.proto",))
    planned = next(message for message in file.message_type if message.name == "Planned")
    if most is not None:
        planned.field[0].options.Extensions[validate_pb2.field].uint32.lte = most
    return Contracts.from_descriptor_set(set_of(file))


CONTRACTS = bounded()
PAYMENTS = Contracts.from_messages([payments_pb2.RefundPaid])


def found(proto: pb.FlowTemplate, contracts: Contracts = CONTRACTS) -> set[tuple[str, str]]:
    return {(finding.code, finding.path) for finding in check(proto, contracts)}


def edited(*edits: tuple[str, str]) -> pb.FlowTemplate:
    text = SOUND
    for wrong, right in edits:
        assert wrong in text, wrong
        text = text.replace(wrong, right, 1)
    return load_yaml(text)


def test_a_sound_template_has_no_findings() -> None:
    assert check(load_yaml(SOUND), CONTRACTS) == []


def test_the_template_of_the_demo_has_no_findings() -> None:
    assert check(load_yaml(REFUND.read_text()), PAYMENTS) == []


STEP = "  - {{name: {name}, agent: {agent}, after: [{after}], emits: [{emits}], effect: NONE, timeout: 5s}}\n"


def extra(*, after: str, emits: str = "", name: str = "extra", agent: str = "other") -> tuple[str, str]:
    return "gates:\n", STEP.format(name=name, agent=agent, after=after, emits=emits) + "gates:\n"


PRICED_IF_MISSED = "after: [shop.v1.Missed]\n    emits: [shop.v1.Priced]"
PLANTED = [
    ("HR001", "version", [("version: 1", "version: 0")]),
    ("HR001", "steps[0].timeout", [("timeout: 5s", "timeout: 0s")]),
    ("HR001", "steps[0].agent", [("agent: planner", "agent: The Planner")]),
    ("HR001", "gates[0].approvers.roles", [("roles: [boss]", "roles: []")]),
    ("HR002", "steps[2].emits[0]", [("emits: [shop.v1.Priced]", "emits: [shop.v1.Prized]")]),
    ("HR002", "steps[1].undo.emits[0]", [("shop.v1.PutBack", "shop.v1.PutAway")]),
    ("HR002", "gates[0].on", [("on: shop.v1.Packed", "on: shop.v1.Nothing")]),
    (
        "HR003",
        "steps[2].after[0]",
        [("pricer\n    after: [shop.v1.Planned", "pricer\n    after: [handrail.v1.FlowHalted")],
    ),
    ("HR003", "steps[3].after_all[1].type", [("type: shop.v1.Priced", "type: handrail.v1.ApprovalRefused")]),
    ("HR003", "gates[0].on", [("on: shop.v1.Packed", "on: handrail.v1.StepCompleted")]),
    ("HR004", "steps[1].name", [("name: pick", "name: split")]),
    ("HR005", "steps[0].agent", [("agent: planner", "agent: coordinator")]),
    ("HR005", "started_by[0]", [("started_by: [desk]", "started_by: [viewer]")]),
    ("HR007", "steps[7]", [extra(after="shop.v1.Stray", emits="shop.v1.Stray")]),
    ("HR008", "completes_with[1]", [("[shop.v1.Told]\n", "[shop.v1.Told, shop.v1.Stray]\n")]),
    ("HR009", "steps[5].after[0]", [("[shop.v1.Shipped, handrail", "[shop.v1.Stray, handrail")]),
    ("HR009", "steps[5].after[1]", [("    expires_after: 60s", "    expires_after: 60s\n    on_reject: FAIL")]),
    ("HR009", "steps[7].after[0]", [extra(after="shop.v1.PutBack")]),
    ("HR009", "gates[0].on", [("on: shop.v1.Packed", "on: shop.v1.Stray"), ("event.price > 100", "true")]),
    ("HR009", "rules[0].on[0]", [("on: [shop.v1.Missed]", "on: [shop.v1.Stray]")]),
    ("HR010", "steps[7].emits[0]", [extra(after="shop.v1.Asked", emits="shop.v1.Stray")]),
    ("HR011", "steps[4].emits[1]", [("emits: [shop.v1.Shipped]", "emits: [shop.v1.Shipped, shop.v1.Stray]")]),
    ("HR011", "starts_with[1]", [("starts_with: [shop.v1.Asked]", "starts_with: [shop.v1.Asked, shop.v1.Stray]")]),
    ("HR011", "steps[6]", [("after: [shop.v1.Shipped, handrail", "after: [handrail")]),
    (
        "HR012",
        "gates[0].on_reject",
        [("[shop.v1.Shipped, handrail.v1.ApprovalRefused]", "[shop.v1.Shipped]")],
    ),
    ("HR013", "steps[1]", [("when: flow.counts['shop.v1.Missed'] > 3", "when: event.part == 'x'")]),
    (
        "HR014",
        "starts_with[0]",
        [("[shop.v1.Picked, shop.v1.Missed]", "[shop.v1.Picked, shop.v1.Missed, shop.v1.Asked]")],
    ),
    ("HR015", "steps[0]", [("effect: NONE", "effect: UNDOABLE")]),
    ("HR016", "steps[1].undo", [("effect: UNDOABLE", "effect: NONE")]),
    (
        "HR017",
        "steps[2].effect",
        [("[shop.v1.Priced]\n    effect: NONE", "[shop.v1.Priced]\n    effect: IRREVERSIBLE")],
    ),
    ("HR018", "steps[3].after_all[1].type", [("{type: shop.v1.Priced}", "{type: shop.v1.Picked, count: 1}")]),
    ("HR019", "steps[3].after_all[0]", [(", count: \"latest['shop.v1.Planned'].parts\"", "")]),
    ("HR020", "steps[3].after_all[0].count", [("Planned'].parts", "Planned'].parst")]),
    ("HR020", "steps[3].after_all[0].count", [("\"latest['shop.v1.Planned'].parts\"", "0")]),
    ("HR020", "steps[3].after_all[0].count", [("\"latest['shop.v1.Planned'].parts\"", "901")]),
    (
        "HR021",
        "steps[3].after_all[0].count",
        [
            ("latest['shop.v1.Planned'].parts", "latest['shop.v1.Counted'].parts"),
            extra(after="shop.v1.Planned", emits="shop.v1.Counted"),
        ],
    ),
    ("HR022", "gates[0].on", [("on: shop.v1.Packed", "on: shop.v1.Asked"), ("event.price > 100", "true")]),
    ("HR023", "gates[0]", [("    expires_after: 60s\n", "")]),
    (
        "HR024",
        "gates[0].expires_after",
        [("expires_after: 60s\n", "expires_after: 60s\n    on_expiry: WAIT\n")],
    ),
    ("HR025", "gates[0].approvers.requester_field", [("by.name", "by.age")]),
    ("HR025", "gates[0].approvers.requester_field", [("by.name", "by")]),
    ("HR025", "gates[0].approvers.requester_field", [("by.name", "names")]),
    ("HR025", "gates[0].approvers.requester_field", [("by.name", "price.name")]),
    ("HR026", "gates[0].approvers.requester_field", [("not_the_requester: true, ", "")]),
    ("HR027", "gates[0].when", [("event.price > 100", "event.prize > 100")]),
    ("HR027", "gates[0].when", [("event.price > 100", "event.price")]),
    ("HR027", "rules[0].when", [("flow.counts['shop.v1.Missed']", "flow.counts['shop.v1.Mist']")]),
    ("HR028", "steps[0].timeout", [("timeout: 5s", "timeout: 3601s")]),
    ("HR028", "steps[0].start_within", [("timeout: 5s", "timeout: 5s\n    start_within: 3601s")]),
    ("HR028", "gates[0].expires_after", [("expires_after: 60s", "expires_after: 7200s")]),
    ("HR031", "steps[3].after_all[1]", [("emits: [shop.v1.Priced]", "emits: [shop.v1.Priced, shop.v1.Packed]")]),
    ("HR031", "steps[3].after_all[1]", [("after: [shop.v1.Planned]\n    emits: [shop.v1.Priced]", PRICED_IF_MISSED)]),
    (
        "HR032",
        "",
        [("\"latest['shop.v1.Planned'].parts\"", "500"), ("type: shop.v1.Priced", "type: shop.v1.Priced, count: 500")],
    ),
    ("HR033", "steps[3].after_all[0].count", [("latest['shop.v1.Planned'].parts", "latest['shop.v1.Priced'].price")]),
    ("HR033", "", [("\"latest['shop.v1.Planned'].parts\"", "899")]),
    (
        "HR035",
        "steps[3].after_all[1].count",
        [
            ("emits: [shop.v1.Planned]", "emits: [shop.v1.Planned]\n    max_outputs: 1"),
            ("emits: [shop.v1.Priced]", "emits: [shop.v1.Priced]\n    max_outputs: 2"),
            ("{type: shop.v1.Priced}", "{type: shop.v1.Priced, count: 3}"),
        ],
    ),
    ("HR036", "gates[0].when", [("event.price > 100", "flow.counts['shop.v1.Packed'] > 3")]),
    ("HR036", "gates[0].when", [("event.price > 100", "flow.facts['shop.v1.Packed'].map(p, p.price).sum() > 3")]),
    ("HR037", "gates[0].when", [("event.price > 100", "event.by.name.matches('^[a-z]+$')")]),
    (
        "HR037",
        "rules[0].when",
        [("flow.counts['shop.v1.Missed'] > 3", "flow.facts['shop.v1.Missed'].map(m, m.part) == []")],
    ),
    ("HR034", "gates[0].when", [("event.price > 100", "event.weight > 1.5")]),
    ("HR034", "rules[0].when", [("flow.counts['shop.v1.Missed'] > 3", "flow.latest['shop.v1.Packed'].weight > 1.5")]),
]


@pytest.mark.parametrize("code, path, edits", PLANTED)
def test_a_planted_fault_is_found_where_it_is(code: str, path: str, edits: list[tuple[str, str]]) -> None:
    findings = [finding for finding in check(edited(*edits), CONTRACTS) if (finding.code, finding.path) == (code, path)]
    assert len(findings) == 1, found(edited(*edits))
    assert findings[0].text
    assert findings[0].remedy
    assert findings[0].severity == CODES[code].severity


def test_every_code_has_a_planted_fault() -> None:
    elsewhere = {"HR006", "HR029", "HR030"}  # a fault of the contract, one of size, and a file that is no template
    assert {code for code, _, _ in PLANTED} | elsewhere == set(CODES)


@pytest.mark.parametrize(
    "rules, warned",
    [
        ("", True),
        ("double: {finite: true}", False),
        ("double: {gte: 0, lt: 9}", False),
        ("double: {gte: 0}", True),
        ("double: {const: 2}", False),
        ("double: {in: [1, 2]}", False),
        ("double: {not_in: [1, 2]}", True),
    ],
)
def test_a_number_in_a_condition_has_to_be_finite_by_its_contract(rules: str, warned: bool) -> None:
    file = shop_file(MESSAGES, imports=("buf/validate/validate.proto",))
    packed = next(message for message in file.message_type if message.name == "Packed")
    text_format.Parse(rules, packed.field[3].options.Extensions[validate_pb2.field])
    proto = edited(("event.price > 100", "event.price > 100 || event.weight > 1.5"))
    told = [each.code for each in check(proto, Contracts.from_descriptor_set(set_of(file)))]
    assert told.count("HR034") == int(warned)


@pytest.mark.parametrize("most, told", [(2, True), (3, False), (None, False)])
def test_a_join_waits_for_no_more_than_the_steps_on_the_way_answer_with(most: int | None, told: bool) -> None:
    limit = "" if most is None else f"\n    max_outputs: {most}"
    proto = edited(
        ("emits: [shop.v1.Planned]", "emits: [shop.v1.Planned]\n    max_outputs: 1"),
        ("emits: [shop.v1.Priced]", f"emits: [shop.v1.Priced]{limit}"),
        ("{type: shop.v1.Priced}", "{type: shop.v1.Priced, count: 3}"),
    )
    assert ("HR035" in {each.code for each in check(proto, CONTRACTS)}) is told


def test_what_a_step_answers_with_at_most_bounds_what_a_join_counts() -> None:
    unbounded = [("latest['shop.v1.Planned'].parts", "latest['shop.v1.Priced'].price")]
    limits = [
        ("emits: [shop.v1.Planned]", "emits: [shop.v1.Planned]\n    max_outputs: 1"),
        ("after: [shop.v1.Planned, shop.v1.Missed]", "after: [shop.v1.Planned]"),
        ("emits: [shop.v1.Picked, shop.v1.Missed]", "emits: [shop.v1.Picked]\n    max_outputs: 50"),
        (SOUND[SOUND.index("rules:") :], ""),
    ]
    assert "HR033" in {each.code for each in check(edited(*unbounded), CONTRACTS)}
    assert "HR033" not in {each.code for each in check(edited(*unbounded, *limits), CONTRACTS)}


def test_a_gate_that_looks_at_what_waits_too_sees_all() -> None:
    own = "shop.v1.Packed"
    text = f"(flow.facts['{own}'] + flow.proposals['{own}']).map(p, p.price).sum() + event.price > 100"
    assert check(edited(("event.price > 100", text)), CONTRACTS) == []


def test_a_condition_of_a_gate_is_typed_as_one_of_a_rule_is() -> None:
    for text in (
        "event.price > flow.latest['shop.v1.Planned'].parts",
        "flow.first.nothing == ''",
        "flow.facts['x'] == []",
    ):
        assert ("HR027", "gates[0].when") in found(edited(("event.price > 100", text)))
    text = "flow.facts['shop.v1.Priced'].map(p, p.price).sum() > 100 || flow.first.key == ''"
    assert check(edited(("event.price > 100", text)), CONTRACTS) == []


def test_a_contract_whose_rules_can_not_be_applied_is_found() -> None:
    file = shop_file(MESSAGES, imports=("buf/validate/validate.proto",))
    rule = file.message_type[0].field[0].options.Extensions[validate_pb2.field].cel.add()
    rule.id, rule.expression = "broken", "this.nothing"
    assert ("HR006", "starts_with[0]") in found(load_yaml(SOUND), Contracts.from_descriptor_set(set_of(file)))


def test_a_near_name_is_suggested() -> None:
    (finding,) = [
        finding
        for finding in check(edited(("emits: [shop.v1.Priced]", "emits: [shop.v1.Prised]")), CONTRACTS)
        if finding.code == "HR002"
    ]
    assert finding.text.endswith("did you mean shop.v1.Priced?")


def test_errors_come_first() -> None:
    findings = check(edited(("effect: NONE", "effect: UNDOABLE"), ("not_the_requester: true, ", "")), CONTRACTS)
    assert [finding.severity for finding in findings] == [pb.SEVERITY_ERROR, pb.SEVERITY_WARNING]


def test_a_count_of_one_can_be_said() -> None:
    proto = edited(("count: \"latest['shop.v1.Planned'].parts\"", "count: 1"))
    assert check(proto, CONTRACTS) == []


def test_a_refusal_that_compensates_needs_no_step() -> None:
    compensate = ("expires_after: 60s", "expires_after: 60s\n    on_reject: COMPENSATE")
    proto = edited((", handrail.v1.ApprovalRefused]", "]"), compensate)
    assert check(proto, CONTRACTS) == []


def test_an_event_that_a_rule_acts_on_is_no_dead_end() -> None:
    proto = edited(
        ("emits: [shop.v1.Shipped]", "emits: [shop.v1.Shipped, shop.v1.Stray]"),
        ("rules:\n", "rules:\n  - {name: lost, on: [shop.v1.Stray], when: 'true', then: COMPENSATE}\n"),
    )
    assert check(proto, CONTRACTS) == []


def test_a_template_beyond_all_limits_is_refused_without_more_ado() -> None:
    proto = load_yaml(SOUND)
    for number in range(3000):
        proto.steps.add(name=f"s{number}", after=["shop.v1.Asked"], emits=["shop.v1.Told"])
    findings = check(proto, CONTRACTS)
    assert {finding.code for finding in findings} == {"HR001"}


def test_a_template_with_more_expressions_than_are_compiled_is_refused() -> None:
    proto = load_yaml(SOUND)
    events = [f"shop.v1.E{number}" for number in range(60)]
    proto.rules.extend(
        pb.Rule(name=f"r{number}", on=events, when="true", then=RuleAction.RULE_ACTION_FAIL) for number in range(10)
    )
    assert found(proto) == {("HR029", "")}


@given(st.permutations(range(7)))
def test_the_order_of_the_steps_does_not_matter(order: list[int]) -> None:
    proto = edited(("[shop.v1.Shipped]", "[shop.v1.Shipped, shop.v1.Stray]"), ("event.price", "event.prize"))
    before = [finding.code for finding in check(proto, CONTRACTS)]
    steps = [pb.Step.FromString(proto.steps[index].SerializeToString()) for index in order]
    proto.ClearField("steps")
    proto.steps.extend(steps)
    assert [finding.code for finding in check(proto, CONTRACTS)] == before


# --- Any template at all ---

NAMES = st.sampled_from([*(f"shop.v1.{name}" for name in MESSAGES), APPROVAL_REFUSED, "shop.v1.Unknown", ""])
PARTS = "latest['shop.v1.Planned'].parts"
EXPRESSIONS = st.sampled_from(
    ["", "true", "event.price > 1", "flow.counts['shop.v1.Picked'] > 1", "1 / 0 > 1", PARTS, "3", "("]
)
DURATIONS = st.builds(Duration, seconds=st.integers(0, 100))


STEPS = st.builds(
    pb.Step,
    name=st.sampled_from(["a", "b", "c", ""]),
    agent=st.sampled_from(["x", "y", "coordinator"]),
    after=st.lists(NAMES, max_size=3),
    after_all=st.lists(st.builds(pb.JoinInput, type=NAMES, count=EXPRESSIONS), max_size=3),
    emits=st.lists(NAMES, max_size=3),
    effect=st.integers(0, 3),
    timeout=DURATIONS,
    undo=st.none() | st.builds(pb.Undo, timeout=DURATIONS, emits=st.lists(NAMES, max_size=2)),
)
GATES = st.builds(
    pb.Gate,
    name=st.sampled_from(["g", "h"]),
    on=NAMES,
    when=EXPRESSIONS,
    approvers=st.builds(
        pb.Approvers, roles=st.just(["boss"]), requester_field=st.sampled_from(["", "key", "by.name", "."])
    ),
    expires_after=st.none() | DURATIONS,
    on_expiry=st.integers(0, 4),
    on_reject=st.integers(0, 3),
)
RULES = st.builds(
    pb.Rule,
    name=st.sampled_from(["r", "s"]),
    on=st.lists(NAMES, max_size=3),
    when=EXPRESSIONS,
    then=st.integers(0, 4),
)
TEMPLATES = st.builds(
    pb.FlowTemplate,
    name=st.just("order"),
    version=st.just(1),
    starts_with=st.lists(NAMES, max_size=2),
    completes_with=st.lists(NAMES, max_size=2),
    deadline=st.none() | DURATIONS,
    steps=st.lists(STEPS, max_size=4),
    gates=st.lists(GATES, max_size=2),
    rules=st.lists(RULES, max_size=2),
)


@given(TEMPLATES)
@settings(max_examples=200)
def test_no_template_makes_the_check_fail(proto: pb.FlowTemplate) -> None:
    assert {finding.code for finding in check(proto, CONTRACTS)} <= set(CODES)


@given(st.data())
@settings(max_examples=200)
def test_whatever_passes_the_check_compiles(data: st.DataObject) -> None:
    proto = load_yaml(SOUND)
    for _ in range(data.draw(st.integers(0, 2))):
        change(proto, data)
    assume(all(finding.severity != pb.SEVERITY_ERROR for finding in check(proto, CONTRACTS)))
    template = Template.compile(proto, CONTRACTS)
    assert Contracts.from_descriptor_set(template.descriptor_set).knows("shop.v1.Asked")


def change(proto: pb.FlowTemplate, data: st.DataObject) -> None:
    """Something that may be wrong, and may as well be right."""
    step = data.draw(st.sampled_from(list(proto.steps)))
    match data.draw(st.integers(0, 7)):
        case 0:
            step.emits.append(data.draw(NAMES))
        case 1 if step.after:
            step.after.append(data.draw(NAMES))
        case 2 if step.after_all:
            step.after_all[0].count = data.draw(EXPRESSIONS)
        case 3 if proto.gates:
            proto.gates[0].when = data.draw(EXPRESSIONS)
        case 4 if proto.rules:
            proto.rules[0].when = data.draw(EXPRESSIONS)
        case 5 if proto.rules:
            proto.rules[0].on.append(data.draw(NAMES))
        case 6:
            proto.ClearField(data.draw(st.sampled_from(["gates", "rules", "started_by"])))
        case _:
            proto.completes_with.append(data.draw(NAMES))


# --- Dead ends, against every way that a flow can go ---

EVENTS = [f"shop.v1.{name}" for name in ("Asked", "Planned", "Picked", "Missed", "Told")]
FLOWS = st.builds(
    lambda steps, gated: pb.FlowTemplate(
        starts_with=EVENTS[:1],
        completes_with=EVENTS[-1:],
        steps=[pb.Step(name=f"s{number}", after=after, emits=emits) for number, (after, emits) in enumerate(steps)],
        gates=[pb.Gate(name=event, on=event) for event in gated],
    ),
    steps=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*EVENTS[:-1], APPROVAL_REFUSED]), min_size=1, max_size=2, unique=True),
            st.lists(st.sampled_from(EVENTS[1:]), max_size=2, unique=True),
        ),
        min_size=1,
        max_size=5,
    ),
    gated=st.lists(st.sampled_from(EVENTS[1:]), max_size=1),
)


def can_strand(proto: pb.FlowTemplate) -> bool:
    """Whether there is a choice of one answer for each step by which the flow comes to rest without being complete."""
    gated = {gate.on for gate in proto.gates}
    answers = [
        [*(step.emits or ["handrail.v1.StepCompleted"]), *([APPROVAL_REFUSED] if gated & set(step.emits) else [])]
        for step in proto.steps
    ]
    return any(comes_to_rest(proto, choice) for choice in itertools.product(*answers))


def comes_to_rest(proto: pb.FlowTemplate, choice: tuple[str, ...]) -> bool:
    def followers(event: str) -> Iterator[str]:
        return (choice[index] for index, step in enumerate(proto.steps) if event in step.after)

    happened: set[str] = set()

    def rests(event: str, way: tuple[str, ...]) -> bool:
        happened.add(event)
        return event not in way and all(rests(follower, (*way, event)) for follower in followers(event))

    return rests(proto.starts_with[0], ()) and happened.isdisjoint(proto.completes_with)


@given(FLOWS)
@settings(max_examples=500)
def test_a_dead_end_is_reported_exactly_where_a_flow_can_be_stranded(proto: pb.FlowTemplate) -> None:
    reported = {finding.code for finding in check(proto, CONTRACTS)}
    assert bool({"HR011", "HR012"} & reported) == can_strand(proto)
