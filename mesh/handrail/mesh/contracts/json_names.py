"""The names of fields in JSON, which some compilers and the descriptors of a running Python leave to be derived."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto


def json_name(field: FieldDescriptorProto) -> str:
    """The name of a field in JSON."""
    head, *tail = field.name.split("_")
    return field.json_name or head + "".join(word[:1].upper() + word[1:] for word in tail)


def fill_in(messages: Iterable[DescriptorProto]) -> None:
    """Have every field of these messages, and of those within, state its name in JSON."""
    for message in messages:
        for field in message.field:
            field.json_name = json_name(field)
        fill_in(message.nested_type)
