"""The largest sizes that contracts allow, to bound a condition's cost before there is any message.

Rules such as `string.max_len` and `repeated.max_items` bound a field. Without them only the largest message does.
"""

from __future__ import annotations

from functools import cached_property

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from handrail.mesh.conditions.held_sizes import TEXTS, entry_of, is_opaque, is_time
from handrail.mesh.conditions.sizes import SINGLE, Many, Opaque, Size, Text
from handrail.mesh.contracts.field_rules import rules_of
from handrail.validate import validate_pb2

LARGEST_MESSAGE = 1 << 20
"""The largest message in bytes: the broker's default. No text and no list in it can be longer."""

_UUID, _UUID_WITHOUT_DASHES = 36, 32


class _Declared(Size):
    """Any message of a type that follows the rules of its contract."""

    def __init__(self, kind: Descriptor, known: _Known) -> None:
        self._kind = kind
        self._known = known
        self._fields: dict[str, Size] = {}
        self._is_counting = False

    @cached_property
    def nodes(self) -> int:  # type: ignore[override]
        """The fields and items of the largest message."""
        if self._is_counting:
            return LARGEST_MESSAGE  # it may hold itself
        self._is_counting = True
        nodes = 1 + sum(self.field(field.name).nodes for field in self._kind.fields)
        self._is_counting = False
        return min(nodes, LARGEST_MESSAGE)

    def field(self, name: str) -> Size:
        """The largest value of a field."""
        if name not in self._fields:
            field = self._kind.fields_by_name.get(name)
            self._fields[name] = SINGLE if field is None else _of_field(field, self._known)
        return self._fields[name]


_Known = dict[str, _Declared]
"""The types visited so far: types may contain each other."""


def largest(kind: Descriptor, known: _Known | None = None) -> Size:
    """The largest message of a type."""
    known = {} if known is None else known
    if is_time(kind):
        return SINGLE
    if is_opaque(kind):
        return Opaque(LARGEST_MESSAGE)
    if kind.full_name not in known:
        known[kind.full_name] = _Declared(kind, known)
    return known[kind.full_name]


def _of_field(field: FieldDescriptor, known: _Known) -> Size:
    rules = rules_of(field)
    if not field.is_repeated:
        return _of_value(field, rules, known)
    entry = entry_of(field)
    if entry is None:
        most = rules.repeated.max_items if rules.repeated.HasField("max_items") else LARGEST_MESSAGE
        return Many(min(most, LARGEST_MESSAGE), _of_value(field, rules.repeated.items, known))
    most = rules.map.max_pairs if rules.map.HasField("max_pairs") else LARGEST_MESSAGE
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    keys, values = _of_value(key, rules.map.keys, known), _of_value(value, rules.map.values, known)
    return Many(min(most, LARGEST_MESSAGE), values, keys)


def _of_value(field: FieldDescriptor, rules: validate_pb2.FieldRules, known: _Known) -> Size:
    kind = field.message_type
    if kind is not None:
        return largest(kind, known)
    return Text(min(_longest(rules), LARGEST_MESSAGE)) if field.type in TEXTS else SINGLE


def _longest(rules: validate_pb2.FieldRules) -> int:
    """The longest text or bytes that the rules allow."""
    kind = rules.WhichOneof("type")
    if kind == "string":
        if rules.string.uuid:
            return _UUID
        if rules.string.tuuid:
            return _UUID_WITHOUT_DASHES
    elif kind != "bytes":
        return LARGEST_MESSAGE
    text = rules.string if kind == "string" else rules.bytes
    bounds = [getattr(text, name) for name in ("len", "max_len", "max_bytes", "len_bytes") if _has(text, name)]
    if _has(text, "const"):
        bounds.append(len(text.const))
    listed = getattr(text, "in")
    if listed:
        bounds.append(max(map(len, listed)))
    return min(bounds, default=LARGEST_MESSAGE)


def _has(rules: validate_pb2.StringRules | validate_pb2.BytesRules, name: str) -> bool:
    return name in rules.DESCRIPTOR.fields_by_name and rules.HasField(name)  # type: ignore[arg-type]
