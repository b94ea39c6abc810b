"""Writes a proto file from its descriptor, without comments: what is compiled from it is the same descriptor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import cast

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

from handrail.mesh.contracts.json_names import json_name

_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}
_END_OF_FIELDS, _END_OF_VALUES = 2**29, 2**31 - 1


def source_of(file: FileDescriptorProto) -> str:
    """The file as text. Raises ValueError if it is of an edition, or has a group: no file of ours is or has."""
    if file.syntax == "editions":
        raise ValueError(f"{file.name} is of an edition, not of proto2 or proto3")
    return "\n".join([*_Writer(file).lines(), ""])


class _Writer:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._is_proto3 = file.syntax == "proto3"

    def lines(self) -> Iterator[str]:
        file = self._file
        yield f'syntax = "{file.syntax or "proto2"}";'
        if file.package:
            yield from ("", f"package {file.package};")
        for index, name in enumerate(file.dependency):
            kind = "public " if index in file.public_dependency else "weak " if index in file.weak_dependency else ""
            yield f'import {kind}"{name}";'
        yield from _statements(file)
        yield from self._extensions(file.extension)
        for message in file.message_type:
            yield from ("", *self._message(message))
        for enum in file.enum_type:
            yield from ("", *_enum(enum))
        for service in file.service:
            yield from ("", *_service(service))

    def _message(self, message: DescriptorProto) -> Iterator[str]:
        yield f"message {message.name} {{"
        yield from _inside(self._body(message))
        yield "}"

    def _body(self, message: DescriptorProto) -> Iterator[str]:
        yield from _statements(message)
        maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        written: set[int] = set()
        for field in message.field:
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield self._field(field, maps)
            elif field.oneof_index not in written:
                written.add(field.oneof_index)
                yield from self._oneof(message, field.oneof_index, maps)
        for extended in message.extension_range:
            options = _bracketed(_options(extended))
            yield f"extensions {_range(extended.start, extended.end - 1, _END_OF_FIELDS - 1)}{options};"
        for reserved in message.reserved_range:
            yield f"reserved {_range(reserved.start, reserved.end - 1, _END_OF_FIELDS - 1)};"
        yield from (f"reserved {json.dumps(name)};" for name in message.reserved_name)
        yield from self._extensions(message.extension)
        for nested in message.nested_type:
            if nested.name not in maps:
                yield from self._message(nested)
        for enum in message.enum_type:
            yield from _enum(enum)

    def _oneof(self, message: DescriptorProto, index: int, maps: dict[str, DescriptorProto]) -> Iterator[str]:
        oneof = message.oneof_decl[index]
        yield f"oneof {oneof.name} {{"
        yield from _inside(_statements(oneof))
        members = [each for each in message.field if each.HasField("oneof_index") and each.oneof_index == index]
        yield from _inside(self._field(each, maps) for each in members)
        yield "}"

    def _extensions(self, fields: Sequence[FieldDescriptorProto]) -> Iterator[str]:
        for field in fields:
            yield from ("", f"extend {field.extendee} {{", f"  {self._field(field, {})}", "}")

    def _field(self, field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
        if field.type == FieldDescriptorProto.TYPE_GROUP:
            raise ValueError(f"{self._file.name}: field {field.name} is a group")
        entry = maps.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = entry.field
            type_name = f"map<{_type(key)}, {_type(value)}>"
        else:
            type_name = f"{self._label(field)}{_type(field)}"
        return f"{type_name} {field.name} = {field.number}{_bracketed(_field_options(field))};"

    def _label(self, field: FieldDescriptorProto) -> str:
        is_implicit = self._is_proto3 and not field.proto3_optional
        is_in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        if field.label == FieldDescriptorProto.LABEL_OPTIONAL and (is_implicit or is_in_oneof):
            return ""
        return _LABELS[field.label]


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from _inside(_statements(enum))
    for value in enum.value:
        yield f"  {value.name} = {value.number}{_bracketed(_options(value))};"
    for reserved in enum.reserved_range:
        yield f"  reserved {_range(reserved.start, reserved.end, _END_OF_VALUES)};"
    yield from (f"  reserved {json.dumps(name)};" for name in enum.reserved_name)
    yield "}"


def _service(service: ServiceDescriptorProto) -> Iterator[str]:
    yield f"service {service.name} {{"
    yield from _inside(_statements(service))
    for method in service.method:
        asked = f"{'stream ' if method.client_streaming else ''}{method.input_type}"
        answered = f"{'stream ' if method.server_streaming else ''}{method.output_type}"
        yield f"  rpc {method.name}({asked}) returns ({answered}) {{"
        yield from _inside(_inside(_statements(method)))
        yield "  }"
    yield "}"


def _inside(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" if line else line for line in lines)


def _type(field: FieldDescriptorProto) -> str:
    return field.type_name or _TYPES[field.type]


def _range(first: int, last: int, end: int) -> str:
    return str(first) if first == last else f"{first} to {'max' if last == end else last}"


def _statements(part: Message) -> Iterator[str]:
    """The options of a part, a statement each."""
    return (f"option {option};" for option in _options(part))


def _bracketed(options: Iterator[str]) -> str:
    listed = ", ".join(options)
    return f" [{listed}]" if listed else ""


def _field_options(field: FieldDescriptorProto) -> Iterator[str]:
    if field.HasField("default_value"):
        yield f"default = {_default(field)}"
    derived = json_name(FieldDescriptorProto(name=field.name))
    if field.json_name not in ("", derived) and not field.extendee:
        yield f"json_name = {json.dumps(field.json_name)}"
    yield from _options(field)


def _default(field: FieldDescriptorProto) -> str:
    text = field.default_value
    if field.type == FieldDescriptorProto.TYPE_BYTES:
        return f'"{text}"'  # a descriptor has these bytes escaped
    return json.dumps(text, ensure_ascii=False) if field.type == FieldDescriptorProto.TYPE_STRING else text


def _options(part: Message) -> Iterator[str]:
    """The options of a part as `name = value`, those of extensions among them."""
    options = cast("Message", part.options)  # type: ignore[attr-defined]
    for option, value in options.ListFields():
        name = f"(.{option.full_name})" if option.is_extension else option.name
        for each in value if option.is_repeated else (value,):
            yield f"{name} = {_value(option, each)}"


def _value(option: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        return f"{{{text_format.MessageToString(value, as_utf8=True, as_one_line=True)}}}"
    if option.enum_type is not None:
        return option.enum_type.values_by_number[cast("int", value)].name
    return json.dumps(value, ensure_ascii=False)
