"""How deep a payload may be nested: what is deeper breaks the contract, and never the process that looks at it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct

from handrail.coordinator.api.views.approvals import MAX_TOGETHER_BYTES, fitted
from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.payload_json import MAX_DEPTH
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.envelope import pack
from handrail.v1.flow_service_pb2 import Approval

CONTRACTS = Contracts.from_descriptor_set(b"")


def struct(levels: int) -> Message:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return ParseDict(value, Struct())  # type: ignore[arg-type]


def lists(levels: int) -> Message:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return ParseDict(value, ListValue())  # type: ignore[arg-type]


def own_type(levels: int) -> Message:
    message = DescriptorProto(name="x")
    for _ in range(levels - 1):
        message = DescriptorProto(nested_type=[message])
    return message


def anys(levels: int) -> Message:
    message: Message = Duration(seconds=1)
    for _ in range(levels - 1):
        message = pack(message)
    return message


@pytest.mark.parametrize("nested", [struct, lists, own_type, anys])
def test_what_is_nested_too_deep_breaks_its_contract(nested: Callable[[int], Message]) -> None:
    deepest = CONTRACTS.decode(pack(nested(MAX_DEPTH)))
    shown = ParseDict(CONTRACTS.to_json(deepest), Struct())
    assert Approval.FromString(Approval(data_json=shown).SerializeToString()).data_json == shown
    with pytest.raises(HandrailError, match=f"nested more than {MAX_DEPTH} levels deep") as refusal:
        CONTRACTS.decode(pack(nested(MAX_DEPTH + 1)))
    assert refusal.value.reason_name == "CONTRACT_VIOLATION"


@pytest.mark.parametrize("levels", [40, 95, 400, 9_000])
def test_any_depth_is_refused_and_can_be_shown(levels: int) -> None:
    data = pack(anys(levels))
    with pytest.raises(HandrailError):
        CONTRACTS.decode(data)
    shown = CONTRACTS.to_json(data)
    assert set(shown) == {"@type", "value"}


def test_what_flat_types_hold_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handrail.mesh.contracts.payload_json._parts", None)
    assert CONTRACTS.decode(pack(Duration(seconds=9))) == Duration(seconds=9)


def test_later_approvals_of_a_flow_come_without_data_where_all_would_not_fit() -> None:
    large = Approval(approval_id="1", data=Any(type_url="t", value=b"x" * (MAX_TOGETHER_BYTES // 3)))
    together = list(fitted(Approval.FromString(large.SerializeToString()) for _ in range(20)))
    assert [bool(each.data.value) for each in together] == [True, True] + [False] * 18
    assert "GetApproval returns it" in str(together[-1].data_json["@error"])
    assert sum(each.ByteSize() for each in together) < MAX_TOGETHER_BYTES
