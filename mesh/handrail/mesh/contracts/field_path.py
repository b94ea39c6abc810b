"""Paths of fields, such as `amount.units`: single fields of a message and of the messages in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_TEXT = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL})
_NO_VALUE = frozenset({FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP})


def field_at(message_type: type[Message], path: str) -> FieldDescriptor | None:
    """The single field at this path; None if there is none, or a list is on the way."""
    field: FieldDescriptor | None = None
    inner = cast("Descriptor | None", message_type.DESCRIPTOR)
    for name in path.split("."):
        field = inner.fields_by_name.get(name) if inner is not None else None
        if field is None or field.is_repeated:
            return None
        inner = field.message_type
    return field


def has_value(field: FieldDescriptor) -> bool:
    """Whether it holds a text, a number, an enum or a truth value."""
    return field.type not in _NO_VALUE


def is_number(field: FieldDescriptor) -> bool:
    """Whether it holds a number."""
    return has_value(field) and field.type not in _TEXT


def value_at(message: Message, path: str) -> str | int | float | None:
    """The value at a path that `field_at` finds: a number, or a text; enums by their names, truth values as `true` and
    `false`. None if the message has no value there.
    """
    *outer, last = path.split(".")
    for name in outer:
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.has_presence and not message.HasField(last):
        return None
    value = getattr(message, last)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value) if field.enum_type is not None else None
        return str(value) if known is None else str(known.name)
    return value if isinstance(value, int | float) else str(value)


def paths_of(message_type: type[Message]) -> Iterator[str]:
    """The names of its own single fields that hold a value."""
    definition = cast("Descriptor", message_type.DESCRIPTOR)
    return (field.name for field in definition.fields if not field.is_repeated and has_value(field))
