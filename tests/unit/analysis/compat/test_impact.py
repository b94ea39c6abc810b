"""Whom a change of a contract hits: agents, gates and rules of a template, by what they do with the message."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.analysis.compat.impact import Hit, Impact, Known, impacts
from handrail.mesh.contracts import descriptor_set_for
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.v1 import template_pb2 as pb
from handrail.v1.event_pb2 import Event
from payments.v1 import payments_pb2
from tests.contract.source import ROOT

REFUND = load_yaml((ROOT / "agents/demos/payments/refund.yaml").read_text())
PAYMENTS = descriptor_set_for([payments_pb2.RefundPaid])

Change = Callable[[FileDescriptorProto], None]


def refund() -> pb.FlowTemplate:
    """The demo's template with a rule that looks at the risk instead of its own."""
    copy = pb.FlowTemplate()
    copy.CopyFrom(REFUND)
    del copy.rules[:]
    copy.rules.add(
        name="risky",
        on=["payments.v1.RefundPaid"],
        when="flow.latest['payments.v1.ChargebackEnriched'].risk == payments.v1.Risk.RISK_HIGH",
        then=1,
    )
    copy.gates[0].approvers.requester_field = "email"
    return copy


def hits(change: Change) -> tuple[Impact, ...]:
    after = FileDescriptorSet.FromString(PAYMENTS)
    (file,) = [each for each in after.file if each.name == "payments/v1/payments.proto"]
    change(file)
    before, changed = ContractSet.parse(PAYMENTS), ContractSet.of(after)
    return impacts(diff(before, changed), before, changed, [Known(refund(), "refund.yaml")])


def hit(change: Change) -> Hit:
    (impact,) = hits(change)
    (found,) = impact.hits
    return found


def message(file: FileDescriptorProto, name: str) -> DescriptorProto:
    (found,) = [each for each in file.message_type if each.name == name]
    return found


def drop(name: str, field: str) -> Change:
    def change(file: FileDescriptorProto) -> None:
        found = message(file, name)
        index = [each.name for each in found.field].index(field)
        del found.field[index]

    return change


def retype(name: str, field: str, to: FieldDescriptorProto.Type.ValueType) -> Change:
    def change(file: FileDescriptorProto) -> None:
        (found,) = [each for each in message(file, name).field if each.name == field]
        found.type = to
        found.ClearField("type_name")
        found.ClearField("options")

    return change


def test_whoever_publishes_waits_or_undoes_is_named_with_the_step() -> None:
    found = hit(drop("RefundPaid", "transfer_id"))
    assert [(part.agent, part.step) for part in found.emits] == [("ledger", "pay")]
    assert [(part.agent, part.step) for part in found.waits] == [("notification", "notify")]
    assert [(part.agent, part.step) for part in found.undoes] == [("ledger", "pay")]
    assert found.agents == ("ledger", "notification")


def test_whoever_begins_flows_is_named() -> None:
    found = hit(drop("ChargebackReceived", "reason"))
    assert [(part.agent, part.message) for part in found.starts] == [("detection", "payments.v1.ChargebackReceived")]
    assert [part.agent for part in found.waits] == ["enrichment"]


def test_a_gate_that_reads_the_field_is_named_and_said_not_to_compile_any_more() -> None:
    found = hit(drop("LargeRefundGranted", "amount"))
    (reading,) = found.readings
    assert (reading.kind, reading.name) == ("gate", "large_refund")
    assert "amount" in reading.problem
    assert found.gates == ("large_refund",)


def test_a_gate_that_reads_another_field_of_the_message_is_not_said_to_read_this_one() -> None:
    found = hit(drop("LargeRefundGranted", "account_id"))
    assert found.readings == ()
    assert found.gates == ("large_refund",)


def test_a_condition_that_reads_what_changed_and_still_compiles_is_named() -> None:
    def rename_in_json(file: FileDescriptorProto) -> None:
        (field,) = [each for each in message(file, "ChargebackEnriched").field if each.name == "risk"]
        field.json_name = "danger"

    (reading,) = hit(rename_in_json).readings
    assert (reading.kind, reading.name, reading.problem) == ("rule", "risky", "")


def test_the_field_that_names_the_requester_is_watched() -> None:
    readings = hit(drop("LargeRefundGranted", "email")).readings
    assert [(reading.kind, reading.name) for reading in readings] == [("requester of gate", "large_refund")]


def test_a_value_of_an_enum_hits_the_messages_that_hold_it_and_the_rules_that_compare_with_it() -> None:
    def drop_high(file: FileDescriptorProto) -> None:
        (risk,) = [each for each in file.enum_type if each.name == "Risk"]
        del risk.value[3]

    found = hit(drop_high)
    assert found.messages == ("payments.v1.ChargebackEnriched",)
    assert [part.agent for part in found.emits] == ["enrichment"]
    (reading,) = found.readings
    assert (reading.kind, reading.name) == ("rule", "risky")
    assert "RISK_HIGH" in reading.problem


def test_a_field_of_another_type_breaks_the_rule_that_reads_it() -> None:
    worst, *_ = hits(retype("ChargebackEnriched", "risk", FieldDescriptorProto.TYPE_STRING))
    (reading,) = worst.hits[0].readings
    assert (worst.change.code, reading.kind, bool(reading.problem)) == ("FIELD_TYPE", "rule", True)


def test_a_message_that_no_template_names_hits_nobody() -> None:
    def drop_unused(file: FileDescriptorProto) -> None:
        file.message_type.remove(message(file, "Unused"))

    before = FileDescriptorSet.FromString(PAYMENTS)
    (file,) = [each for each in before.file if each.name == "payments/v1/payments.proto"]
    file.message_type.add(name="Unused")
    old, new = ContractSet.of(before), ContractSet.parse(PAYMENTS)
    (impact,) = impacts(diff(old, new), old, new, [Known(refund(), "refund.yaml")])
    assert not impact.hits_anybody


def test_a_change_of_the_envelope_hits_everybody() -> None:
    after = FileDescriptorSet.FromString(descriptor_set_for([Event]))
    before = ContractSet.of(after)
    changed = FileDescriptorSet()
    changed.CopyFrom(after)
    (file,) = [each for each in changed.file if each.name == "handrail/v1/event.proto"]
    del file.message_type[0].field[0]
    now = ContractSet.of(changed)
    found = impacts(diff(before, now), before, now, [])
    assert all(impact.everybody for impact in found)
    assert found


def test_a_rule_that_was_taken_back_hits_no_condition() -> None:
    def loosen(file: FileDescriptorProto) -> None:
        for each in message(file, "ChargebackEnriched").field:
            each.ClearField("options")

    found = hits(loosen)
    assert found
    assert [impact.change.level for impact in found if impact.change.level] == []
    assert [hit.readings for impact in found for hit in impact.hits if hit.readings] == []


def test_templates_are_told_apart_by_where_they_were_found() -> None:
    before = ContractSet.parse(PAYMENTS)
    after = FileDescriptorSet.FromString(PAYMENTS)
    (file,) = [each for each in after.file if each.name == "payments/v1/payments.proto"]
    drop("RefundPaid", "email")(file)
    now = ContractSet.of(after)
    both = [Known(refund(), "refund.yaml"), Known(refund(), "main:refund.yaml")]
    (impact,) = impacts(diff(before, now), before, now, both)
    assert [found.template.origin for found in impact.hits] == ["refund.yaml", "main:refund.yaml"]


def test_the_count_of_a_join_that_reads_the_field_is_named() -> None:
    template = refund()
    template.steps[0].after.clear()
    units = "latest['payments.v1.ChargebackReceived'].amount.units"
    template.steps[0].after_all.add(type="payments.v1.ChargebackReceived", count=units)
    before = ContractSet.parse(PAYMENTS)
    changed = FileDescriptorSet.FromString(PAYMENTS)
    (file,) = [each for each in changed.file if each.name == "payments/v1/payments.proto"]
    drop("ChargebackReceived", "amount")(file)
    after = ContractSet.of(changed)
    (impact,) = impacts(diff(before, after), before, after, [Known(template, "refund.yaml")])
    (reading,) = impact.hits[0].readings
    assert (reading.kind, reading.name, reading.text) == ("join of step", "enrich", units)
    assert "amount" in reading.problem
