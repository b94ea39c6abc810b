"""A template is read as it is written, or refused with the line, the column and the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.errors import HandrailError
from handrail.mesh.template import load_yaml
from handrail.mesh.template.yaml_reader import MAX_BYTES, MAX_DEPTH
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction

REFUND = Path(__file__).parents[4] / "agents" / "demos" / "payments" / "refund.yaml"

TEMPLATE = """\
name: refund
version: 2
starts_with: [shop.v1.Asked]
completes_with: [shop.v1.Paid]
deadline: 90s
compensation_order: PARALLEL
steps:
  - name: pay
    agent: ledger
    after_all:
      - {type: shop.v1.Granted, count: 3}
      - {type: shop.v1.Asked, count: "latest['shop.v1.Asked'].lines"}
    emits: [shop.v1.Paid]
    effect: UNDOABLE
    timeout: 0.5s
    retry: {max_attempts: 3, initialBackoff: 1s, multiplier: 1.5}
    onFailure: COMPENSATE
    undo: {timeout: 30s}
gates:
  - name: large
    on: shop.v1.Granted
    when: true
    approvers: {roles: [finance], quorum: 2, not_the_requester: true}
    on_expiry: EXPIRY_ACTION_WAIT
rules:
  - name: many
    on: [shop.v1.Granted]
    when: flow.counts['shop.v1.Granted'] > 3
    then: ESCALATE
"""


def refused(text: str) -> HandrailError:
    with pytest.raises(HandrailError) as caught:
        load_yaml(text)
    return caught.value


def test_a_template_is_read_as_it_is_written() -> None:
    template = load_yaml(TEMPLATE)
    (step,), (gate,), (rule,) = template.steps, template.gates, template.rules
    assert (template.name, template.version, template.deadline) == ("refund", 2, Duration(seconds=90))
    assert template.compensation_order == pb.COMPENSATION_ORDER_PARALLEL
    assert [(join.type, join.count) for join in step.after_all] == [
        ("shop.v1.Granted", "3"),
        ("shop.v1.Asked", "latest['shop.v1.Asked'].lines"),
    ]
    assert (step.effect, step.on_failure) == (pb.EFFECT_UNDOABLE, pb.FAILURE_ACTION_COMPENSATE)
    assert step.timeout == Duration(nanos=500_000_000)
    assert (step.retry.max_attempts, step.retry.multiplier) == (3, 1.5)
    assert step.retry.initial_backoff == Duration(seconds=1)
    assert step.HasField("undo")
    assert (gate.when, gate.on_expiry) == ("true", pb.EXPIRY_ACTION_WAIT)
    assert (gate.approvers.quorum, gate.approvers.not_the_requester) == (2, True)
    assert rule.then == RuleAction.RULE_ACTION_ESCALATE


def test_an_empty_part_is_there_all_the_same() -> None:
    text = TEMPLATE.replace("undo: {timeout: 30s}", "undo: {}")
    assert load_yaml(text).steps[0].HasField("undo")


@pytest.mark.parametrize(
    "wrong, right, place, why",
    [
        ("effect: UNDOABLE", "efect: UNDOABLE", (14, 5), 'steps[0]: there is no field "efect"; did you mean effect?'),
        ("name: many", "x: many", (26, 5), 'there is no field "x"; known fields are name, on, when, then'),
        ("effect: UNDOABLE", "effect: UNDOIBLE", (14, 13), 'steps[0].effect: "UNDOIBLE" is not one of NONE, UNDOABLE'),
        ("effect: UNDOABLE", "effect: 2", (14, 13), '"2" is not one of'),
        ("deadline: 90s", "deadline: 90", (5, 11), 'deadline: "90" is not a duration, like 30s'),
        ("deadline: 90s", "deadline: 1w", (5, 11), "not a duration, like 30s, 0.5s, 2h, 1h30m or 7d"),
        ("deadline: 90s", "deadline: 30m1h", (5, 11), "not a duration"),
        ("deadline: 90s", "deadline: 1h 30m", (5, 11), "not a duration"),
        ("deadline: 90s", "deadline: {seconds: 90}", (5, 11), "must be a single value"),
        ("version: 2", "version: two", (2, 10), 'version: "two" is not a whole number'),
        ("version: 2", "version: -1", (2, 10), "not a whole number"),
        ("version: 2", "version: 4294967296", (2, 10), "not a whole number"),
        ("version: 2", "version:", (2, 9), "version: has no value"),
        ("multiplier: 1.5", "multiplier: .inf", (16, 62), '".inf" is not a number'),
        ("not_the_requester: true", "not_the_requester: yes", (23, 65), '"yes" is neither true nor false'),
        ("starts_with: [shop.v1.Asked]", "starts_with: shop.v1.Asked", (3, 14), "starts_with: must be a list"),
        ("starts_with: [shop.v1.Asked]", "starts_with: [[a]]", (3, 15), "starts_with[0]: must be a single value"),
        ("undo: {timeout: 30s}", "undo: [a]", (18, 11), "steps[0].undo: must be a mapping"),
        ("undo: {timeout: 30s}", "effect: NONE", (18, 5), "steps[0]: field effect occurs twice"),
        (
            "onFailure: COMPENSATE",
            "on_failure: FAIL\n    onFailure: COMPENSATE",
            (18, 5),
            "field on_failure occurs twice",
        ),
        ("name: refund", "name: &x refund", (1, 7), "a template can't have anchors and aliases"),
        ("name: refund", "name: !!str refund", (1, 7), "tags like"),
        ("name: refund", "name: !!python/object/apply:os.system [x]", (1, 7), "tags like"),
        ("name: refund", "<<: {name: refund}", (1, 1), 'there is no field "<<"'),
        ("name: refund", "? [a, b]\n: c", (1, 3), 'there is no field ""'),
        ("name: refund", "name: refund: x", (1, 13), "mapping values are not allowed here"),
        ("name: refund", "name: [", (3, 12), "expected ',' or ']'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(wrong: str, right: str, place: tuple[int, int], why: str) -> None:
    assert wrong in TEMPLATE
    error = refused(TEMPLATE.replace(wrong, right, 1))
    assert why in error.text
    assert error.reason_name == "MALFORMED"
    assert (int(error.metadata["line"]), int(error.metadata["column"])) == place
    assert error.text.startswith(f"line {place[0]}, column {place[1]}: ")


@pytest.mark.parametrize("text", ["", "   \n", "# nothing\n"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert "this file contains no template" in refused(text).text


def test_only_one_document_is_read() -> None:
    assert "another document" in refused("name: a\n---\nname: b\n").text


def test_aliases_can_not_multiply() -> None:
    lines = ["a: &a [x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    assert "anchors and aliases" in refused("\n".join(lines)).text


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    assert f"line 1, column {MAX_DEPTH * len(opening) + 1}: nested more than" in refused(opening * 40_000).text


@pytest.mark.parametrize("text", ["".join(f"k{number}: 1\n" for number in range(10_000)), f"steps: [{'{},' * 20_000}]"])
def test_many_keys_and_values_are_refused_before_all_are_read(text: str) -> None:
    error = refused(text)
    assert error.reason_name == "TOO_LARGE"
    assert "more than 20,000 keys and values" in error.text


def test_a_large_file_is_refused_before_it_is_parsed() -> None:
    error = refused("#" + "ä" * MAX_BYTES)
    assert error.reason_name == "TOO_LARGE"


@given(st.text(max_size=80) | st.text(alphabet="name: [{}]&*!-?|>'\"\n\t#%@`a1.", max_size=80))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        load_yaml(text)
    except HandrailError as error:
        refusal = error.reason_name
    else:
        refusal = ""
    assert refusal in {"", "MALFORMED"}


@given(st.data())
def test_no_damaged_template_does_worse_than_be_refused(data: st.DataObject) -> None:
    text = list(TEMPLATE)
    for _ in range(data.draw(st.integers(1, 5))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.characters())
    try:
        load_yaml("".join(text))
    except HandrailError as error:
        refusal = error.reason_name
    else:
        refusal = ""
    assert refusal in {"", "MALFORMED"}


def test_the_contract_of_a_template_has_no_field_that_can_not_be_written() -> None:
    known = {
        *(FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_UINT32),
        *(FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE),
    }
    found = list(fields_of(pb.FlowTemplate.DESCRIPTOR))
    assert "handrail.v1.Retry.multiplier" in {field.full_name for field in found}
    assert [field.full_name for field in found if field.type not in known] == []
    maps = [field for field in found if field.message_type and field.message_type.GetOptions().map_entry]
    assert [field.full_name for field in maps] == []


def fields_of(definition: Descriptor) -> Iterator[FieldDescriptor]:
    """The fields of a message and of all messages in it."""
    for field in definition.fields:
        yield field
        if field.message_type is not None and field.message_type.full_name != Duration.DESCRIPTOR.full_name:
            yield from fields_of(field.message_type)


def test_the_template_of_the_demo_can_be_read() -> None:
    assert load_yaml(REFUND.read_text()).name == "refund"
