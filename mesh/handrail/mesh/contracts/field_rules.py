"""The protovalidate rules of a field, and what they imply for its values."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions

from handrail.validate import validate_pb2


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules of a field; empty if it has none."""
    return FieldOptions.FromString(field.GetOptions().SerializeToString()).Extensions[validate_pb2.field]


def excludes_infinity(field: FieldDescriptor) -> bool:
    """Whether the rules of a field of doubles (single, repeated, map or wrapped) allow only finite numbers.

    The rules `finite`, `const` and `in` do, and so does a lower with an upper bound: bounds reject NaN.
    """
    rules = rules_of(field)
    if rules.HasField("repeated"):
        rules = rules.repeated.items
    elif rules.HasField("map"):
        rules = rules.map.values
    kind = rules.WhichOneof("type")
    if kind not in ("double", "float"):
        return False
    number = rules.double if kind == "double" else rules.float
    below = number.HasField("gt") or number.HasField("gte")
    above = number.HasField("lt") or number.HasField("lte")
    listed = number.HasField("const") or len(getattr(number, "in")) > 0
    return number.finite or listed or (below and above)
