"""P5: contracts at every boundary, learned from stored descriptors alone."""

from __future__ import annotations

import base64

import pytest
from google.protobuf import any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.contracts import Contracts, descriptor_set_for
from handrail.mesh.contracts.descriptors import MAX_BYTES
from handrail.mesh.errors import ContractViolation, HandrailError
from handrail.mesh.wire.envelope import pack
from handrail.v1 import decision_pb2, event_pb2
from handrail.validate import validate_pb2
from payments.v1 import payments_pb2
from tests.support.shop import message, set_of, shop, shop_file

PAYMENTS = descriptor_set_for([payments_pb2.RefundPaid])
CONTRACTS = Contracts.from_descriptor_set(PAYMENTS)


def reason_of(descriptor_set: bytes) -> tuple[str, str]:
    with pytest.raises(HandrailError) as caught:
        Contracts.from_descriptor_set(descriptor_set)
    return caught.value.reason_name, caught.value.text


def outcome_of(descriptor_set: bytes) -> str:
    try:
        Contracts.from_descriptor_set(descriptor_set)
    except HandrailError as error:
        return error.reason_name
    return ""


def granted(*, units: int = 1500, email: str = "a@example.com") -> payments_pb2.LargeRefundGranted:
    amount = money_pb2.Money(currency_code="EUR", units=units)
    return payments_pb2.LargeRefundGranted(chargeback_id="c", account_id="a", amount=amount, email=email)


# --- Learning messages ---


def test_messages_are_decoded_without_generated_code() -> None:
    decoded = CONTRACTS.decode(pack(granted()))
    assert type(decoded) is not payments_pb2.LargeRefundGranted
    assert decoded.SerializeToString() == granted().SerializeToString()


def test_messages_of_ones_own_are_decoded_as_their_own_classes() -> None:
    contracts = Contracts.from_messages([payments_pb2.LargeRefundGranted])
    assert type(contracts.decode(pack(granted()))) is payments_pb2.LargeRefundGranted


def test_messages_of_handrail_and_well_known_types_are_always_the_generated_classes() -> None:
    contracts = Contracts.from_descriptor_set(b"")
    assert contracts.message_class("handrail.v1.ApprovalRefused") is decision_pb2.ApprovalRefused
    assert contracts.message_class("google.protobuf.Timestamp") is timestamp_pb2.Timestamp


def test_two_versions_of_a_contract_live_side_by_side() -> None:
    def version(minimum: int) -> Contracts:
        file = shop_file({"Asked": {"amount": "int64"}}, imports=("buf/validate/validate.proto",))
        options = file.message_type[0].field[0].options
        options.Extensions[validate_pb2.field].int64.gte = minimum
        return Contracts.from_descriptor_set(set_of(file))

    old, new = version(1), version(100)
    for contracts, accepts in ((old, True), (new, False), (old, True)):
        asked = contracts.message_class("shop.v1.Asked")(amount=50)
        assert (contracts.violations(asked) == ()) is accepts


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(HandrailError, match=r"payments\.v1\.RefundPad") as caught:
        CONTRACTS.message_class("payments.v1.RefundPad")
    assert caught.value.reason_name == "UNKNOWN_MESSAGE_TYPE"
    assert not CONTRACTS.knows("payments.v1.RefundPad")
    assert CONTRACTS.knows("payments.v1.RefundPaid")


def test_bytes_of_another_type_are_malformed() -> None:
    data = any_pb2.Any(type_url="type.googleapis.com/payments.v1.RefundPaid", value=b"\xff\xff\xff")
    with pytest.raises(HandrailError, match=r"3 bytes are not a payments\.v1\.RefundPaid") as caught:
        CONTRACTS.decode(data)
    assert caught.value.reason_name == "MALFORMED"


# --- Descriptor sets ---


def test_the_same_contracts_have_the_same_bytes_whoever_wrote_them() -> None:
    written = FileDescriptorSet.FromString(PAYMENTS)
    for file in written.file:
        file.source_code_info.location.add(path=[4, 0], span=[1, 2, 3], leading_comments="a comment")
        for message_type in file.message_type:
            for field in message_type.field:
                field.ClearField("json_name")  # some compilers leave it to be derived
    shuffled = FileDescriptorSet(file=reversed(written.file))
    again = Contracts.from_descriptor_set(shuffled.SerializeToString())
    assert again.descriptor_set == CONTRACTS.descriptor_set
    assert Contracts.from_descriptor_set(CONTRACTS.descriptor_set).descriptor_set == CONTRACTS.descriptor_set


def test_a_subset_has_the_files_of_its_messages_and_their_imports() -> None:
    other = shop_file({"Lonely": {}}, name="shop/v1/lonely.proto")
    contracts = Contracts.from_descriptor_set(set_of(shop_file({"Asked": {}}), other))
    names = [file.name for file in FileDescriptorSet.FromString(contracts.subset(["shop.v1.Asked"])).file]
    assert names == ["shop/v1/shop.proto"]
    money = [file.name for file in FileDescriptorSet.FromString(CONTRACTS.subset(["payments.v1.RefundPaid"])).file]
    assert money.index("google/type/money.proto") < money.index("payments/v1/payments.proto")


def test_a_neighbour_in_the_same_file_does_not_change_a_fingerprint() -> None:
    line, asked = {"sku": "string"}, {"line": "repeated shop.v1.Line"}
    before = shop(Line=line, Asked=asked)
    beside = shop(Line=line, Asked=asked, Neighbour={"x": "int64"})
    changed = shop(Line={**line, "pieces": "int64"}, Asked=asked)
    wanted = ["shop.v1.Asked"]
    assert before.fingerprint(wanted) == beside.fingerprint(wanted)
    assert before.fingerprint(wanted) != changed.fingerprint(wanted)


def test_a_missing_import_is_named() -> None:
    files = FileDescriptorSet.FromString(PAYMENTS).file
    reason, text = reason_of(set_of(*(file for file in files if file.name != "google/type/money.proto")))
    assert reason == "MALFORMED"
    assert "payments/v1/payments.proto imports google/type/money.proto" in text
    assert "with imports" in text


@pytest.mark.parametrize(
    "files, why",
    [
        (
            [shop_file({}, name="a.proto", imports=("b.proto",)), shop_file({}, name="b.proto", imports=("a.proto",))],
            "in a cycle",
        ),
        (
            [shop_file({"Asked": {}}), shop_file({"Asked": {"x": "int64"}})],
            "two different files with the name shop/v1/shop.proto",
        ),
        ([shop_file({"Asked": {"x": "shop.v1.Nothing"}})], "shop.v1.Nothing"),
        ([shop_file({"A": {}}, name="a.proto"), shop_file({"A": {}}, name="b.proto")], "b.proto is inconsistent"),
        ([FileDescriptorProto(package="shop.v1")], "without a name"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(files: list[FileDescriptorProto], why: str) -> None:
    reason, text = reason_of(set_of(*files))
    assert reason == "MALFORMED"
    assert why in text


def test_what_is_no_descriptor_set_is_refused() -> None:
    assert reason_of(b"\xff\xff")[0] == "MALFORMED"
    assert reason_of(event_pb2.Event(event_id="x").SerializeToString())[0] == "MALFORMED"
    assert reason_of(b"\x12\x00")[1].endswith("it has no files")


def test_a_set_that_is_too_large_is_refused() -> None:
    reason, text = reason_of(b"\x00" * (MAX_BYTES + 1))
    assert reason == "TOO_LARGE"
    assert "900,001 bytes" in text


def test_a_set_can_not_redefine_what_handrail_means() -> None:
    forged = FileDescriptorProto(name="handrail/v1/event.proto", package="handrail.v1", syntax="proto3")
    forged.message_type.append(message("Event", {"anything": "string"}))
    contracts = Contracts.from_descriptor_set(set_of(forged))
    assert contracts.message_class("handrail.v1.Event") is event_pb2.Event


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(junk: bytes) -> None:
    assert outcome_of(junk) in {"", "MALFORMED"}


@given(st.data())
def test_no_damaged_set_does_worse_than_be_refused(data: st.DataObject) -> None:
    whole = bytearray(set_of(shop_file({"Line": {"sku": "string"}, "Asked": {"line": "repeated shop.v1.Line"}})))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert outcome_of(bytes(whole)) in {"", "MALFORMED"}


# --- Rules ---


def test_every_broken_rule_is_named_with_its_field() -> None:
    with pytest.raises(ContractViolation) as caught:
        CONTRACTS.validate(CONTRACTS.decode(pack(granted(units=7, email="nobody"))))
    broken = {(violation.field, violation.rule) for violation in caught.value.violations}
    assert broken == {("amount", "large_refund.from_1000"), ("email", "string.email")}
    assert caught.value.reason_name == "CONTRACT_VIOLATION"
    assert "a large refund is 1,000 or more" in caught.value.text


def test_the_path_of_a_broken_rule_has_positions_and_keys() -> None:
    file = shop_file(
        {"Line": {"sku": "string"}, "Asked": {"line": "repeated shop.v1.Line"}},
        imports=("buf/validate/validate.proto",),
    )
    file.message_type[0].field[0].options.Extensions[validate_pb2.field].string.min_len = 1
    contracts = Contracts.from_descriptor_set(set_of(file))
    asked = contracts.message_class("shop.v1.Asked").FromString(b"\x0a\x03\x0a\x01x\x0a\x00")
    assert [violation.field for violation in contracts.violations(asked)] == ["line[1].sku"]


def test_rules_that_can_not_be_applied_fail_closed() -> None:
    file = shop_file({"Asked": {"amount": "int64"}}, imports=("buf/validate/validate.proto",))
    rule = file.message_type[0].field[0].options.Extensions[validate_pb2.field].cel.add()
    rule.id, rule.expression = "broken", "this.nothing > 'x'"
    contracts = Contracts.from_descriptor_set(set_of(file))
    with pytest.raises(HandrailError, match=r"rules in the contract of shop\.v1\.Asked") as caught:
        contracts.validate(contracts.message_class("shop.v1.Asked")())
    assert caught.value.reason_name == "CONTRACT_VIOLATION"


# --- Rendering ---


def test_domain_payloads_are_shown_by_their_stored_contract() -> None:
    event = event_pb2.Event(event_id="e", data=pack(granted()), template_version=3)
    shown = CONTRACTS.to_json(event)
    assert shown["templateVersion"] == 3
    assert shown["data"] == {
        "@type": "type.googleapis.com/payments.v1.LargeRefundGranted",
        "chargebackId": "c",
        "accountId": "a",
        "amount": {"currencyCode": "EUR", "units": "1500"},
        "email": "a@example.com",
    }


def test_payloads_inside_payloads_are_shown_too() -> None:
    refused = decision_pb2.ApprovalRefused(voter="ann", proposal=pack(granted()))
    shown = CONTRACTS.to_json(event_pb2.Event(data=pack(refused)))
    assert isinstance(shown["data"], dict)
    assert shown["data"]["voter"] == "ann"
    assert isinstance(shown["data"]["proposal"], dict)
    assert shown["data"]["proposal"]["chargebackId"] == "c"


@pytest.mark.parametrize("full_name", ["unknown.v1.Thing", "payments.v1.RefundPaid"])
def test_what_can_not_be_decoded_is_shown_with_its_bytes(full_name: str) -> None:
    data = any_pb2.Any(type_url=f"type.googleapis.com/{full_name}", value=b"\xff\x00\xfe")
    expected = {"@type": data.type_url, "value": base64.b64encode(data.value).decode()}
    assert CONTRACTS.to_json(data) == expected
    assert CONTRACTS.to_json(event_pb2.Event(data=data))["data"] == expected


def test_what_has_no_json_form_is_shown_with_its_bytes() -> None:
    when = timestamp_pb2.Timestamp(seconds=10**18)
    received = payments_pb2.ChargebackReceived(chargeback_id="cb-1", received_time=when)
    data = any_pb2.Any(
        type_url="type.googleapis.com/payments.v1.ChargebackReceived", value=received.SerializeToString()
    )
    shown = CONTRACTS.to_json(event_pb2.Event(source="desk", time=when, data=data))
    assert shown["source"] == "desk"
    assert isinstance(shown["time"], str)
    assert shown["data"] == {"@type": data.type_url, "value": base64.b64encode(data.value).decode()}


@pytest.mark.parametrize(
    "value",
    [
        timestamp_pb2.Timestamp(seconds=10**17),
        duration_pb2.Duration(seconds=10**17),
        field_mask_pb2.FieldMask(paths=["Foo"]),
        struct_pb2.Value(number_value=float("nan")),
    ],
    ids=["a time", "a duration", "a field mask", "a number"],
)
def test_a_payload_without_a_json_form_is_shown_with_its_bytes(value: Message) -> None:
    data = pack(value)
    shown = CONTRACTS.to_json(event_pb2.Event(source="desk", data=data))
    assert shown["data"] == {"@type": data.type_url, "value": base64.b64encode(data.value).decode()}


def test_lists_of_payloads_are_shown() -> None:
    file = shop_file(
        {"Box": {"first": "google.protobuf.Any", "more": "repeated google.protobuf.Any", "note": "string"}},
        imports=("google/protobuf/any.proto",),
    )
    contracts = Contracts.from_descriptor_set(set_of(file))
    time = pack(timestamp_pb2.Timestamp(seconds=1)).SerializeToString()
    box = contracts.message_class("shop.v1.Box")(note="n")
    box.MergeFromString(b"".join(tag + bytes([len(time)]) + time for tag in (b"\x0a", b"\x12", b"\x12")))
    shown_time = {"@type": "type.googleapis.com/google.protobuf.Timestamp", "value": "1970-01-01T00:00:01Z"}
    assert contracts.to_json(box) == {"first": shown_time, "more": [shown_time, shown_time], "note": "n"}


@pytest.mark.parametrize(
    "what, file",
    [
        ("messages and enums", shop_file({f"M{number}": {} for number in range(5_001)})),
        ("fields and enum values", shop_file({"M": {f"f{number}": "int64" for number in range(50_001)}})),
    ],
)
def test_more_than_can_be_worked_with_is_refused_before_it_is_linked(what: str, file: FileDescriptorProto) -> None:
    with pytest.raises(HandrailError, match=f"the descriptor set has [0-9,]+ {what}, at most") as caught:
        Contracts.from_descriptor_set(set_of(file))
    assert caught.value.reason_name == "TOO_LARGE"
