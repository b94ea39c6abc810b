"""The flow type-check finds what would strand a flow, bypass a gate or surprise people, and nothing else."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from handrail.analysis.check.typecheck import CODES, check
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import load_yaml
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction
from handrail.validate import validate_pb2
from payments.v1 import payments_pb2
from tests.support.checked_orders import CONTRACTS, MESSAGES, SOUND, edited
from tests.support.shop import set_of, shop_file
from tests.unit.mesh.template.test_yaml_reader import REFUND

PAYMENTS = Contracts.from_messages([payments_pb2.RefundPaid])


def found(proto: pb.FlowTemplate, contracts: Contracts = CONTRACTS) -> set[tuple[str, str]]:
    return {(finding.code, finding.path) for finding in check(proto, contracts)}


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
    ("HR038", "search[0]", [("deadline: 3600s", "deadline: 3600s\nsearch: [order_number]")]),
    ("HR038", "search[0]", [("deadline: 3600s", "deadline: 3600s\nsearch: [by]")]),
    ("HR039", "steps[1].undo", [("effect: UNDOABLE", "effect: UNDOABLE\n    external: true")]),
    ("HR039", "steps[0].start_within", [("timeout: 5s", "timeout: 5s\n    external: true\n    start_within: 5s")]),
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


def test_a_template_with_longer_expressions_than_are_compiled_is_refused() -> None:
    proto = load_yaml(SOUND)
    proto.rules[0].when += " || false" * 1000
    assert ("HR029", "") not in found(proto)
    proto.rules[0].on.extend(f"shop.v1.E{number}" for number in range(6))
    assert found(proto) == {("HR029", "")}


def test_a_condition_on_the_first_event_counts_once_for_each_type_that_may_be_first() -> None:
    proto = load_yaml(SOUND)
    proto.starts_with.extend(f"shop.v1.E{number}" for number in range(60))
    proto.rules[0].on.extend(f"shop.v1.E{number}" for number in range(3))
    proto.rules[0].when = "flow . first.key == ''"
    assert found(proto) == {("HR029", "")}
