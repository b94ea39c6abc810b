"""What changed between the fields of two states of one message. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from handrail.analysis.compat import validation
from handrail.analysis.compat.change import Change, Level
from handrail.analysis.compat.contract_set import ContractSet, Defined, is_real_oneof
from handrail.mesh.contracts.json_names import json_name
from handrail.mesh.errors import HandrailError

_SAME_BYTES = (
    frozenset({FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_INT64}),
    frozenset({FieldDescriptorProto.TYPE_UINT32, FieldDescriptorProto.TYPE_UINT64}),
    frozenset({FieldDescriptorProto.TYPE_SINT32, FieldDescriptorProto.TYPE_SINT64}),
    frozenset({FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_ENUM}),
)
"""Pairs of types with the same encoding as long as the number fits: proto3's list of safe updates."""

_OPTIONS = ("ctype", "jstype", "lazy", "features")
_REPEATED = FieldDescriptorProto.LABEL_REPEATED
_REQUIRED = FieldDescriptorProto.LABEL_REQUIRED


class FieldDiff:
    """Compares the fields of a message before and after. `contracts` are the new ones, to apply validation rules."""

    def __init__(
        self, name: str, old: Defined[DescriptorProto], new: Defined[DescriptorProto], contracts: ContractSet
    ) -> None:
        self._name = name
        self._old = old.proto
        self._new = new.proto
        self._syntax = (old.file.syntax, new.file.syntax)
        self._file = new.file.name
        self._contracts = contracts

    def changes(self) -> Iterator[Change]:
        """Compares field by field, by number, since the bytes hold numbers."""
        for old, new in pairs(self._old, self._new):
            if old is None:
                yield from [] if new is None else [self._added(new)]
            elif new is None:
                text = f"field {old.number} ({spelled(old)} {old.name}) is gone"
                yield self._change(old, "FIELD_REMOVED", Level.BREAKING_WIRE, text)
            else:
                if old.number != new.number:
                    text = f"field {old.name} had number {old.number}, and has {new.number}"
                    yield self._change(old, "FIELD_RENUMBERED", Level.BREAKING_WIRE, text)
                yield from self._field(old, new)

    def _added(self, field: FieldDescriptorProto) -> Change:
        what = f"field {field.number} ({spelled(field)} {field.name}) is new"
        if field.label == _REQUIRED:
            text = f"{what} and required: old messages can't be read"
            return self._change(field, "FIELD_ADDED_REQUIRED", Level.BREAKING_WIRE, text)
        if self._refuses_absence(field):
            text = f"{what}, and its rules refuse messages without it, such as all old ones"
            return self._change(field, "FIELD_ADDED_REQUIRED", Level.TIGHTENED, text)
        return self._change(field, "FIELD_ADDED", Level.COMPATIBLE, what)

    def _refuses_absence(self, field: FieldDescriptorProto) -> bool:
        if not validation.field_rules(field):
            return False
        try:
            empty = self._contracts.contracts.message_class(self._name)()
            violations = self._contracts.contracts.violations(empty)
        except HandrailError:
            return True  # if rules can't be applied, everything is refused
        return any(violation.field.split(".")[0].split("[")[0] == field.name for violation in violations)

    def _field(self, old: FieldDescriptorProto, new: FieldDescriptorProto) -> Iterator[Change]:
        if old.name != new.name:
            text = f"field {old.number} was called {old.name}, and is {new.name}"
            yield self._change(old, "FIELD_RENAMED", Level.BREAKING_SOURCE, text)
        elif json_name(old) != json_name(new):
            text = f"field {old.name} was {json_name(old)} in JSON, and is {json_name(new)}"
            yield self._change(old, "FIELD_JSON_NAME", Level.BREAKING_SOURCE, text)
        if (old.type, old.type_name) != (new.type, new.type_name):
            same = any({old.type, new.type} == pair for pair in _SAME_BYTES)
            level = Level.BREAKING_SOURCE if same else Level.BREAKING_WIRE
            text = f"field {old.name} was {spelled(old)}, and is {spelled(new)}"
            yield self._change(old, "FIELD_TYPE", level, text)
        yield from self._cardinality(old, new)
        before, after = oneof_of(self._old, old), oneof_of(self._new, new)
        if before != after:
            text = f"field {old.name} was in {_oneof(before)}, and is in {_oneof(after)}"
            yield self._change(old, "FIELD_ONEOF", Level.BREAKING_WIRE, text)
        if old.default_value != new.default_value:
            text = f'the default of {old.name} was "{old.default_value}", and is "{new.default_value}"'
            yield self._change(old, "FIELD_DEFAULT", Level.BREAKING_WIRE, text)
        for option in _OPTIONS:
            was, now = one_line(getattr(old.options, option)), one_line(getattr(new.options, option))
            if was != now:
                level = Level.BREAKING_WIRE if option == "features" else Level.BREAKING_SOURCE
                text = f"option {option} of {old.name} was {was}, and is {now}"
                yield self._change(old, "FIELD_OPTION", level, text)

    def _cardinality(self, old: FieldDescriptorProto, new: FieldDescriptorProto) -> Iterator[Change]:
        was, now = _cardinality(old), _cardinality(new)
        if was == now:
            return
        presence = _REPEATED not in (old.label, new.label) and _REQUIRED not in (old.label, new.label)
        level = Level.BREAKING_SOURCE if presence else Level.BREAKING_WIRE
        text = f"field {old.name} was {was}, and is {now}"
        yield self._change(old, "FIELD_CARDINALITY", level, text)

    def _change(self, field: FieldDescriptorProto, code: str, level: Level, text: str) -> Change:
        return Change(self._name, field.name, code, level, self._file, text)


Pair: TypeAlias = "tuple[FieldDescriptorProto | None, FieldDescriptorProto | None]"
"""A field before and after; None if it did not exist before, or was removed."""


def pairs(old: DescriptorProto, new: DescriptorProto) -> Iterator[Pair]:
    """Pairs each old field with its new state; the added fields follow.

    A name found under another number counts as the same field, renumbered. All others are paired by number.
    """
    names = {field.name: field for field in new.field}
    moved = {
        field.name: names[field.name]
        for field in old.field
        if field.name in names and names[field.name].number != field.number
    }
    left = {field.number: field for field in new.field if field.name not in moved}
    for field in old.field:
        yield field, moved[field.name] if field.name in moved else left.pop(field.number, None)
    yield from ((None, field) for _, field in sorted(left.items()))


def spelled(field: FieldDescriptorProto) -> str:
    """The type of a field, as written in a contract."""
    name = field.type_name.removeprefix(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {name}" if field.label == _REPEATED else name


def oneof_of(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """The name of the oneof that contains a field; empty if none does."""
    if not field.HasField("oneof_index") or not is_real_oneof(message, field.oneof_index):
        return ""
    return message.oneof_decl[field.oneof_index].name


def _cardinality(field: FieldDescriptorProto) -> str:
    if field.label == _REPEATED:
        return "repeated"
    if field.label == _REQUIRED:
        return "required"
    # A message field has presence with or without the keyword.
    is_optional = field.proto3_optional and field.type != FieldDescriptorProto.TYPE_MESSAGE
    return "optional" if is_optional else "single"


def _oneof(name: str) -> str:
    return f"oneof {name}" if name else "no oneof"


def one_line(option: object) -> str:
    """The value of an option as text without line breaks."""
    return " ".join(str(option).split()) or "not set"
