"""Contracts for tests: messages of the package shop.v1, without generated code."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from handrail.mesh.contracts import Contracts

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
}

Fields = Mapping[str, str]
"""Field names and types: `int64`, `repeated string`, or the full name of a message."""


def message(name: str, fields: Fields) -> DescriptorProto:
    """A message; its fields are numbered in order."""
    proto = DescriptorProto(name=name)
    for number, (field_name, spelled) in enumerate(fields.items(), start=1):
        repeated, _, type_name = spelled.rpartition(" ")
        field = proto.field.add(name=field_name, number=number)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if type_name in _TYPES:
            field.type = _TYPES[type_name]
        else:
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{type_name}"
    return proto


def shop_file(
    messages: Mapping[str, Fields], *, name: str = "shop/v1/shop.proto", imports: tuple[str, ...] = ()
) -> FileDescriptorProto:
    """A file of the package shop.v1 with these messages."""
    return FileDescriptorProto(
        name=name,
        package="shop.v1",
        syntax="proto3",
        dependency=imports,
        message_type=[message(message_name, fields) for message_name, fields in messages.items()],
    )


def set_of(*files: FileDescriptorProto) -> bytes:
    """A descriptor set of these files, in this order."""
    return FileDescriptorSet(file=files).SerializeToString()


def shop(**messages: Fields) -> Contracts:
    """Contracts with these messages of shop.v1."""
    return Contracts.from_descriptor_set(set_of(shop_file(messages)))
