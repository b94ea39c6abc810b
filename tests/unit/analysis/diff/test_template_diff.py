"""What a diff says: each change of a template or its contracts as a sentence, and nothing where flows can't tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions

from handrail.analysis.diff.template_diff import diff
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template, load_yaml
from handrail.v1.template_pb2 import FlowTemplate
from handrail.validate import validate_pb2
from tests.support.shop import set_of, shop, shop_file

ORDER = """
name: order
version: 1
starts_with: [shop.v1.Placed]
started_by: [web]
completes_with: [shop.v1.Sent]
deadline: 86400s
compensation_order: NEWEST_FIRST
on_divergence: RECORD
steps:
  - name: price
    agent: prices
    after: [shop.v1.Placed]
    emits: [shop.v1.Priced, shop.v1.Refused]
    effect: NONE
    timeout: 30s
    retry: {max_attempts: 3, initial_backoff: 1s, multiplier: 2, max_backoff: 30s}
    on_failure: COMPENSATE
  - name: pay
    agent: till
    after: [shop.v1.Priced]
    emits: [shop.v1.Paid]
    effect: UNDOABLE
    timeout: 30s
    undo: {timeout: 10s, retry: {max_attempts: 5}, emits: [shop.v1.PaidBack]}
  - name: send
    agent: post
    after_all: [{type: shop.v1.Paid}, {type: shop.v1.Placed, count: "1"}]
    emits: [shop.v1.Sent]
    effect: IRREVERSIBLE
    timeout: 3600s
gates:
  - name: large
    on: shop.v1.Priced
    when: event.cents >= 1000
    approvers: {roles: [finance], quorum: 2, not_the_requester: true, requester_field: who}
    expires_after: 14400s
    on_expiry: REJECT
    on_reject: CONTINUE
rules:
  - name: dear
    on: [shop.v1.Priced]
    when: event.cents > 5000
    then: ESCALATE
"""

FIELDS = {"cents": "int64", "who": "string", "whom": "string"}
TYPES = ("Placed", "Priced", "Refused", "Paid", "PaidBack", "Sent", "Audited")
CONTRACTS = shop(**dict.fromkeys(TYPES, FIELDS))


def order(*changes: tuple[str, str], contracts: Contracts = CONTRACTS) -> Template:
    text = ORDER
    for old, new in changes:
        assert text.count(old) == 1, f'"{old}" is there {text.count(old)} times'
        text = text.replace(old, new)
    return Template.compile(load_yaml(text), contracts)


def said(*changes: tuple[str, str]) -> list[str]:
    return [change.text for change in diff(order(), order(*changes))]


AUDIT = """  - {name: audit, agent: auditor, after: [shop.v1.Paid], emits: [shop.v1.Audited],
     effect: NONE, timeout: 60s}
gates:"""
PAY_UNDO = "    undo: {timeout: 10s, retry: {max_attempts: 5}, emits: [shop.v1.PaidBack]}\n"
PAY_RETRY = "timeout: 30s\n    undo: {timeout: 10s"
SENTENCES: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "a lower threshold": (
        [(">= 1000", ">= 500")],
        [
            "Gate large asks two people of finance from 500 on instead of 1000, so more often "
            '("event.cents >= 500"; was: "event.cents >= 1000").'
        ],
    ),
    "a higher threshold of a rule": (
        [("> 5000", "> 9000")],
        [
            "Rule dear trips above 9000 instead of 5000, so less often "
            '("event.cents > 9000"; was: "event.cents > 5000").'
        ],
    ),
    "a time after which flows are purged": (
        [("deadline: 86400s\n", "deadline: 86400s\nretention: 7200s\n")],
        ["Finished flows are purged 2 h after their last message; before, they are purged as the installation says."],
    ),
    "a longer flow": (
        [("deadline: 86400s\n", "deadline: 86400s\nmax_messages: 2000\n")],
        ["A flow is held at 2000 messages; before, at 900."],
    ),
    "flows that stay": (
        [("deadline: 86400s\n", "deadline: 86400s\nkeep_forever: true\n")],
        ["Finished flows stay in the stream for ever; before, they are purged as the installation says."],
    ),
    "another condition": (
        [("when: event.cents >= 1000", "when: event.who == 'kim'")],
        ['Gate large asks two people of finance only when "event.who == \'kim\'" (was: when "event.cents >= 1000").'],
    ),
    "no condition": (
        [("    when: event.cents >= 1000\n", "")],
        ['Gate large asks two people of finance always (was: only when "event.cents >= 1000").'],
    ),
    "a limit on answers": (
        [("    effect: NONE\n    timeout: 30s", "    effect: NONE\n    max_outputs: 1\n    timeout: 30s")],
        ["Step price may answer with one message instead of as many messages as it likes."],
    ),
    "more people": ([("quorum: 2", "quorum: 3")], ["Gate large needs three people to approve instead of two people."]),
    "other people": (
        [("[finance]", "[risk, finance]")],
        ["Gate large takes votes of finance or risk instead of finance."],
    ),
    "the requester may vote": (
        [("not_the_requester: true", "not_the_requester: false")],
        ["Gate large: the requester may vote too."],
    ),
    "another requester": (
        [(", requester_field: who", "")],
        ["Gate large takes who started the flow for the requester instead of the field who."],
    ),
    "less time to answer": ([("14400s", "5400s")], ["Gate large gives people 90 min to answer instead of 4 h."]),
    "another end of that time": (
        [("on_expiry: REJECT", "on_expiry: APPROVE")],
        ["Gate large: when nobody answers a proposal in time, it counts as approved; before, it counted as refused."],
    ),
    "a refusal that ends the flow": (
        [("on_reject: CONTINUE", "on_reject: FAIL")],
        ["Gate large: after a refusal, the flow ends as failed; before, the flow went on with the refusal."],
    ),
    "a gate that is gone": (
        [(ORDER[ORDER.index("gates:") : ORDER.index("rules:")], "")],
        ["Gate large is gone: it asked two people of finance. Priced passes without asking anybody."],
    ),
    "a rule that is gone": (
        [(ORDER[ORDER.index("rules:") :], "")],
        ['Rule dear is gone (it was: at each Priced with "event.cents > 5000"): such flows are no longer held.'],
    ),
    "a rule that does something else": (
        [("then: ESCALATE", "then: FAIL")],
        ["When rule dear trips, the flow ends as failed; before, the flow is held and a person is asked."],
    ),
    "a step that may wait": (
        [("timeout: 3600s", "timeout: 3600s\n    start_within: 90s")],
        ["Step send may wait 90 s until it is begun; before, while its agent is at work."],
    ),
    "a slower step": ([("timeout: 3600s", "timeout: 90s")], ["Step send may take 90 s instead of 1 h."]),
    "more attempts": (
        [("max_attempts: 3", "max_attempts: 4")],
        ["Step price is tried 4 times at most instead of 3 times."],
    ),
    "a retry where there was none": (
        [(PAY_RETRY, PAY_RETRY.replace("30s\n", "30s\n    retry: {max_attempts: 2}\n"))],
        ["Step pay is tried twice at most instead of once."],
    ),
    "another agent": ([("agent: till", "agent: bank")], ["Step pay is agent bank's instead of agent till's."]),
    "another effect": (
        [
            ("effect: UNDOABLE", "effect: NONE"),
            (PAY_UNDO, ""),
        ],
        [
            "Step pay is declared to change nothing outside; before, it was declared to have an undoable effect.",
            "Nobody undoes the effect of step pay any longer.",
        ],
    ),
    "a new step": (
        [("gates:", AUDIT)],
        [
            "A new step audit runs after each Paid: agent auditor answers Audited within 1 min. It changes nothing "
            "outside. Flows that get there are complete only when it is done."
        ],
    ),
    "a new name": ([("name: pay\n", "name: settle\n")], ["Step pay is renamed to settle."]),
    "a join that waits for more": (
        [('count: "1"', 'count: "2"')],
        ["Step send waits for a Paid and two Placed together, instead of for a Paid and a Placed."],
    ),
    "no join any more": (
        [('after_all: [{type: shop.v1.Paid}, {type: shop.v1.Placed, count: "1"}]', "after: [shop.v1.Paid]")],
        ["Step send runs after each Paid; before, it waits for a Paid and a Placed together."],
    ),
    "another answer": (
        [("[shop.v1.Priced, shop.v1.Refused]", "[shop.v1.Priced]")],
        ["Step price may no longer answer Refused."],
    ),
    "a later deadline": ([("86400s", "172800s")], ["A flow may take 48 h instead of 24 h before a person is asked."]),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_a_change_is_said_in_a_sentence(what: str) -> None:
    changes, sentences = SENTENCES[what]
    assert said(*changes) == sentences


SPELLINGS: dict[str, list[tuple[str, str]]] = {
    "the version": [("version: 1", "version: 2")],
    "defaults left out": [
        ("compensation_order: NEWEST_FIRST\n", ""),
        ("on_divergence: RECORD\n", ""),
        ("    on_expiry: REJECT\n", ""),
        (', count: "1"', ""),
        (", multiplier: 2", ""),
    ],
    "another unit": [("86400s", "86400.000s")],
    "another order": [("[shop.v1.Priced, shop.v1.Refused]", "[shop.v1.Refused, shop.v1.Priced]")],
}


@pytest.mark.parametrize("what", SPELLINGS)
def test_what_no_flow_can_tell_is_no_change(what: str) -> None:
    assert said(*SPELLINGS[what]) == []


OTHER = {
    "name": "other",
    "agent": "other",
    "on": "shop.v1.Paid",
    "count": "7",
    "type": "shop.v1.Refused",
    "when": "event.cents == 7",
    "requester_field": "whom",
}
"""Another value for each text; those that are not named here are message types or roles."""


def leaves(message: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field in message.fields:
        if field.message_type is None or field.message_type.full_name.startswith("google."):
            yield (*path, field.name)
        else:
            yield from leaves(field.message_type, (*path, field.name))


def mutate(message: object, path: tuple[str, ...]) -> None:
    """Give the field another value; of a list, in its last element."""
    name, *rest = path
    field: FieldDescriptor = message.DESCRIPTOR.fields_by_name[name]  # type: ignore[attr-defined]
    value = getattr(message, name)
    if rest:
        mutate(value[-1] if field.is_repeated else value, tuple(rest))
    elif field.is_repeated and field.enum_type is not None:
        value.append(1)
    elif field.is_repeated:
        value.append("other" if name in ("roles", "started_by") else "shop.v1.Audited")
    elif field.message_type is not None:
        value.FromSeconds(77)
    elif field.enum_type is not None:
        other = next(each.number for each in field.enum_type.values if each.number not in (0, 1, value))
        setattr(message, name, other)
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, name, OTHER[name])
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, name, not value)
    else:
        setattr(message, name, 7)


@pytest.mark.parametrize("path", sorted(set(leaves(FlowTemplate.DESCRIPTOR)) - {("version",)}), ids=".".join)
def test_no_field_of_a_template_is_forgotten(path: tuple[str, ...]) -> None:
    changed = order().proto.__deepcopy__({})
    # The step in the middle has an undo; the last one is a join.
    if path[:1] == ("steps",) and path[1] not in ("after_all",):
        middle = changed.steps[1].__deepcopy__({})
        del changed.steps[1]
        changed.steps.append(middle)
    mutate(changed, path)
    assert diff(order(), Template.compile(changed, CONTRACTS))


def test_the_way_back_is_a_change_too() -> None:
    for changes, _ in SENTENCES.values():
        assert diff(order(*changes), order())


def contracts(**placed: str) -> Contracts:
    return shop(**dict.fromkeys(TYPES, FIELDS) | {"Placed": placed})


CONTRACT_CHANGES: dict[str, tuple[dict[str, str], list[str]]] = {
    "a new field": ({**FIELDS, "memo": "string"}, ["shop.v1.Placed has a new field memo (string)."]),
    "a field that is gone": (
        {"cents": "int64", "who": "string"},
        ["shop.v1.Placed no longer has a field whom (string)."],
    ),
    "another type": ({**FIELDS, "cents": "double"}, ["Field cents of shop.v1.Placed is double instead of int64."]),
    "a list": (
        {**FIELDS, "who": "repeated string"},
        ["Field who of shop.v1.Placed is repeated string instead of string."],
    ),
    "another name": (
        {"cents": "int64", "buyer": "string", "whom": "string"},
        ["Field who of shop.v1.Placed is renamed to buyer: conditions and JSON must use the new name."],
    ),
    "a message inside": (
        {**FIELDS, "priced": "shop.v1.Priced"},
        ["shop.v1.Placed has a new field priced (shop.v1.Priced)."],
    ),
}


@pytest.mark.parametrize("what", CONTRACT_CHANGES)
def test_a_change_of_a_contract_is_said_too(what: str) -> None:
    fields, sentences = CONTRACT_CHANGES[what]
    assert [change.text for change in diff(order(), order(contracts=contracts(**fields)))] == sentences


def test_new_validation_rules_are_said() -> None:
    file = shop_file(dict.fromkeys(TYPES, FIELDS), imports=("buf/validate/validate.proto",))
    [cents, *_] = file.message_type[0].field
    options = FieldOptions()
    options.Extensions[validate_pb2.field].int64.gte = 5
    cents.options.CopyFrom(options)
    stricter = Contracts.from_descriptor_set(set_of(file))
    assert [change.text for change in diff(order(), order(contracts=stricter))] == [
        "The validation rules on field cents of shop.v1.Placed are {int64 { gte: 5 }} instead of none."
    ]


def test_enum_values_come_and_go() -> None:
    def with_values(*values: str) -> Contracts:
        file = shop_file(dict.fromkeys(TYPES, FIELDS))
        enum = file.enum_type.add(name="Colour")
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
        file.message_type[0].field.add(name="colour", number=9, type=14, label=1, type_name=".shop.v1.Colour")
        return Contracts.from_descriptor_set(set_of(file))

    changes = diff(order(contracts=with_values("RED", "BLUE")), order(contracts=with_values("RED", "GREEN")))
    assert [change.text for change in changes] == [
        "Enum shop.v1.Colour has a new value GREEN (1).",
        "Enum shop.v1.Colour no longer has a value BLUE (1).",
    ]
