"""What changed between two contracts, and how much it hurts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from handrail.analysis.compat.change import REMEDIES, Change, Level
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.analysis.compat.impact import impacts
from handrail.mesh.contracts.descriptors import KNOWN, file_proto
from handrail.mesh.errors import HandrailError
from handrail.validate import validate_pb2
from tests.contract.source import ROOT
from tests.support.shop import message, shop_file

ASKED = {"amount": "int64", "who": "string", "tags": "repeated string"}


def base() -> FileDescriptorProto:
    messages = {
        "Asked": ASKED,
        "Basket": {"asked": "shop.v1.Asked"},
        "Range": {"low": "int64", "high": "int64"},
        "AskRequest": {"asked": "shop.v1.Asked"},
        "AskResponse": {"range": "shop.v1.Range"},
    }
    file = shop_file(messages, imports=("buf/validate/validate.proto",))
    file.enum_type.append(EnumDescriptorProto(name="Kind"))
    for number, name in enumerate(("KIND_UNSPECIFIED", "KIND_SMALL", "KIND_LARGE")):
        file.enum_type[0].value.add(name=name, number=number)
    field = file.message_type[0].field.add(name="kind", number=4, label=FieldDescriptorProto.LABEL_OPTIONAL)
    field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, ".shop.v1.Kind"
    rules(file, 1).string.min_len = 2
    return file


def rules(file: FileDescriptorProto, index: int, name: str = "Asked") -> validate_pb2.FieldRules:
    (found,) = [each for each in file.message_type if each.name == name]
    extended: validate_pb2.FieldRules = found.field[index].options.Extensions[validate_pb2.field]
    return extended


def contracts(file: FileDescriptorProto) -> ContractSet:
    imported = [file_proto(each) for each in KNOWN.values() if each.name.startswith(("google/", "buf/"))]
    return ContractSet.parse(FileDescriptorSet(file=[*imported, file]).SerializeToString())


def changes(change: Callable[[FileDescriptorProto], object]) -> tuple[Change, ...]:
    file = base()
    change(file)
    return diff(contracts(base()), contracts(file))


def only(change: Callable[[FileDescriptorProto], object]) -> Change:
    (found,) = changes(change)
    return found


def asked(file: FileDescriptorProto) -> DescriptorProto:
    return file.message_type[0]


def test_the_same_contracts_have_no_changes() -> None:
    assert changes(lambda file: None) == ()


def remove_field(file: FileDescriptorProto) -> None:
    del asked(file).field[0]


def rename_field(file: FileDescriptorProto) -> None:
    asked(file).field[0].name = "total"


def renumber_field(file: FileDescriptorProto) -> None:
    asked(file).field[0].number = 9


def retype_field(file: FileDescriptorProto) -> None:
    asked(file).field[0].type = FieldDescriptorProto.TYPE_STRING


def repeat_field(file: FileDescriptorProto) -> None:
    asked(file).field[0].label = FieldDescriptorProto.LABEL_REPEATED


def rename_in_json(file: FileDescriptorProto) -> None:
    asked(file).field[0].json_name = "sum"


def put_into_a_oneof(file: FileDescriptorProto) -> None:
    asked(file).oneof_decl.add(name="choice")
    asked(file).field[0].oneof_index = 0


def make_optional(file: FileDescriptorProto) -> None:
    asked(file).oneof_decl.add(name="_amount")
    asked(file).field[0].oneof_index = 0
    asked(file).field[0].proto3_optional = True


def remove_value(file: FileDescriptorProto) -> None:
    del file.enum_type[0].value[2]


def rename_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[2].name = "KIND_HUGE"


def renumber_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[2].number = 7


def swap_values(file: FileDescriptorProto) -> None:
    one, other = file.enum_type[0].value[1:]
    one.number, other.number = other.number, one.number


def swap_fields(file: FileDescriptorProto) -> None:
    one, other = file.message_type[2].field
    one.number, other.number = other.number, one.number


def add_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value.add(name="KIND_HUGE", number=3)


def add_field(file: FileDescriptorProto) -> None:
    asked(file).field.add(name="note", number=9, label=1, type=FieldDescriptorProto.TYPE_STRING)


def add_required_field(file: FileDescriptorProto) -> None:
    add_field(file)
    rules(file, -1).string.min_len = 1


def add_bounded_field(file: FileDescriptorProto) -> None:
    add_field(file)
    rules(file, -1).string.max_len = 1


def remove_message(file: FileDescriptorProto) -> None:
    del file.message_type[1]


def raise_min_len(file: FileDescriptorProto) -> None:
    rules(file, 1).string.min_len = 3


def lower_min_len(file: FileDescriptorProto) -> None:
    rules(file, 1).string.min_len = 1


def add_pattern(file: FileDescriptorProto) -> None:
    rules(file, 1).string.pattern = "^a"


def drop_rules(file: FileDescriptorProto) -> None:
    asked(file).field[1].ClearField("options")


def add_cel(file: FileDescriptorProto) -> None:
    rules(file, 0).cel.add(id="amount.even", expression="this % 2 == 0")


def serve(file: FileDescriptorProto) -> None:
    """An RPC whose request holds what is asked for."""
    service = file.service.add(name="Asking")
    service.method.add(name="Ask", input_type=".shop.v1.AskRequest", output_type=".shop.v1.AskResponse")


def require_who(file: FileDescriptorProto) -> None:
    rules(file, 1).required = True


@pytest.mark.parametrize(
    "change,code,level,name",
    [
        (remove_field, "FIELD_REMOVED", Level.BREAKING_WIRE, "shop.v1.Asked.amount"),
        (rename_field, "FIELD_RENAMED", Level.BREAKING_SOURCE, "shop.v1.Asked.amount"),
        (renumber_field, "FIELD_RENUMBERED", Level.BREAKING_WIRE, "shop.v1.Asked.amount"),
        (retype_field, "FIELD_TYPE", Level.BREAKING_WIRE, "shop.v1.Asked.amount"),
        (repeat_field, "FIELD_CARDINALITY", Level.BREAKING_WIRE, "shop.v1.Asked.amount"),
        (rename_in_json, "FIELD_JSON_NAME", Level.BREAKING_SOURCE, "shop.v1.Asked.amount"),
        (put_into_a_oneof, "FIELD_ONEOF", Level.BREAKING_WIRE, "shop.v1.Asked.amount"),
        (make_optional, "FIELD_CARDINALITY", Level.BREAKING_SOURCE, "shop.v1.Asked.amount"),
        (remove_value, "ENUM_VALUE_REMOVED", Level.BREAKING_WIRE, "shop.v1.Kind.KIND_LARGE"),
        (rename_value, "ENUM_VALUE_RENAMED", Level.BREAKING_SOURCE, "shop.v1.Kind.KIND_LARGE"),
        (renumber_value, "ENUM_VALUE_RENUMBERED", Level.BREAKING_WIRE, "shop.v1.Kind.KIND_LARGE"),
        (add_value, "ENUM_VALUE_ADDED", Level.COMPATIBLE, "shop.v1.Kind.KIND_HUGE"),
        (add_field, "FIELD_ADDED", Level.COMPATIBLE, "shop.v1.Asked.note"),
        (add_required_field, "FIELD_ADDED_REQUIRED", Level.TIGHTENED, "shop.v1.Asked.note"),
        (add_bounded_field, "FIELD_ADDED", Level.COMPATIBLE, "shop.v1.Asked.note"),
        (remove_message, "MESSAGE_REMOVED", Level.BREAKING_WIRE, "shop.v1.Basket"),
        (raise_min_len, "RULE_TIGHTENED", Level.TIGHTENED, "shop.v1.Asked.who"),
        (lower_min_len, "RULE_LOOSENED", Level.COMPATIBLE, "shop.v1.Asked.who"),
        (add_pattern, "RULE_ADDED", Level.TIGHTENED, "shop.v1.Asked.who"),
        (drop_rules, "RULE_REMOVED", Level.COMPATIBLE, "shop.v1.Asked.who"),
        (add_cel, "RULE_ADDED", Level.TIGHTENED, "shop.v1.Asked.amount"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_change_is_named_and_graded(
    change: Callable[[FileDescriptorProto], object], code: str, level: Level, name: str
) -> None:
    found = only(change)
    assert (found.code, found.level, found.name) == (code, level, name)
    assert found.code in REMEDIES


@pytest.mark.parametrize(
    "change,code,names",
    [
        (swap_values, "ENUM_VALUE_RENUMBERED", ["shop.v1.Kind.KIND_LARGE", "shop.v1.Kind.KIND_SMALL"]),
        (swap_fields, "FIELD_RENUMBERED", ["shop.v1.Range.high", "shop.v1.Range.low"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_two_that_changed_places_are_not_two_new_names(
    change: Callable[[FileDescriptorProto], object], code: str, names: list[str]
) -> None:
    found = changes(change)
    assert [(each.code, each.level, each.name) for each in found] == [
        (code, Level.BREAKING_WIRE, name) for name in names
    ]


def test_a_number_that_is_free_once_its_value_has_moved_may_be_taken_by_a_new_one() -> None:
    def shift(file: FileDescriptorProto) -> None:
        renumber_value(file)
        file.enum_type[0].value.add(name="KIND_HUGE", number=2)

    assert [(each.code, each.member) for each in changes(shift)] == [
        ("ENUM_VALUE_RENUMBERED", "KIND_LARGE"),
        ("ENUM_VALUE_ADDED", "KIND_HUGE"),
    ]


@pytest.mark.parametrize("change", [add_required_field, raise_min_len, add_pattern, add_cel, require_who])
def test_what_refuses_requests_that_were_right_breaks_clients(change: Callable[[FileDescriptorProto], object]) -> None:
    def served(file: FileDescriptorProto) -> FileDescriptorProto:
        serve(file)
        return file

    file = served(base())
    change(file)
    (found,) = diff(contracts(served(base())), contracts(file))
    assert (found.level, found.level.is_breaking) == (Level.BREAKING_REQUEST, True)
    assert "RPC" in found.remedy or "missing" in found.remedy


def test_what_a_new_rpc_or_a_response_asks_for_breaks_no_client() -> None:
    def narrow_response(file: FileDescriptorProto) -> None:
        rules(file, 0, "Range").int64.gte = 0

    file = base()
    require_who(file)
    serve(file)
    assert {each.level for each in diff(contracts(base()), contracts(file))} == {Level.TIGHTENED, Level.COMPATIBLE}
    before, after = base(), base()
    for file in (before, after):
        serve(file)
    narrow_response(after)
    assert [each.level for each in diff(contracts(before), contracts(after))] == [Level.TIGHTENED]


def test_a_number_that_was_given_to_another_field_is_another_name_and_another_type() -> None:
    def reuse(file: FileDescriptorProto) -> None:
        rename_field(file)
        retype_field(file)

    assert {change.code for change in changes(reuse)} == {"FIELD_RENAMED", "FIELD_TYPE"}


def test_the_worst_comes_first() -> None:
    def several(file: FileDescriptorProto) -> None:
        add_value(file)
        raise_min_len(file)
        rename_in_json(file)
        del asked(file).field[2]

    levels = [change.level for change in changes(several)]
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) == 4


def test_wider_and_narrower_sets_of_values_are_told_apart() -> None:
    def allowed(*values: str) -> ContractSet:
        file = base()
        getattr(rules(file, 1).string, "in").extend(values)
        return contracts(file)

    def codes(before: ContractSet, after: ContractSet) -> list[str]:
        return [change.code for change in diff(before, after)]

    assert codes(allowed("aa", "bb"), allowed("aa")) == ["RULE_TIGHTENED"]
    assert codes(allowed("aa"), allowed("aa", "bb")) == ["RULE_LOOSENED"]
    assert codes(allowed("aa"), allowed("bb")) == ["RULE_CHANGED"]


def test_bounds_that_exclude_a_range_are_not_mistaken_for_narrower_ones() -> None:
    def outside(low: int, high: int) -> ContractSet:
        file = base()
        rules(file, 0).int64.lt, rules(file, 0).int64.gt = low, high
        return contracts(file)

    (found,) = diff(outside(1, 9), outside(1, 20))
    assert (found.code, found.level) == ("RULE_CHANGED", Level.TIGHTENED)


def test_what_contains_a_message_is_hit_with_it() -> None:
    assert contracts(base()).containing("shop.v1.Kind") == {
        "shop.v1.Asked",
        "shop.v1.AskRequest",
        "shop.v1.Basket",
    }
    assert contracts(base()).containing("shop.v1.Basket") == {"shop.v1.Basket"}


def test_a_message_that_contains_itself_is_no_endless_search() -> None:
    file = shop_file({"Tree": {"left": "shop.v1.Tree"}})
    assert contracts(file).containing("shop.v1.Tree") == {"shop.v1.Tree"}


def test_a_new_message_is_compatible() -> None:
    def add(file: FileDescriptorProto) -> None:
        file.message_type.append(message("Fresh", {"name": "string"}))

    assert only(add).level == Level.COMPATIBLE


def test_a_damaged_image_is_refused_or_compared_and_never_a_fault() -> None:
    image = (ROOT / "gen/released.binpb").read_bytes()
    released = ContractSet.parse(image)
    reasons: list[str] = []
    for seed in range(60):
        random = Random(seed)
        damaged = bytearray(image)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            found = ContractSet.parse(bytes(damaged))
        except HandrailError as error:
            reasons.append(error.reason_name)
        else:
            impacts(diff(released, found), released, found, [])
    assert set(reasons) == {"MALFORMED"}
    assert len(reasons) < 60
