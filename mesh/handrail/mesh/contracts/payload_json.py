"""Messages as JSON for people: proto3 JSON, with each `Any` opened by the contract that defines its type.

An approver must see the whole message. So unknown fields, from a newer contract or from a forger, are shown as well,
with their bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias, cast

from google.protobuf import any_pb2, descriptor
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message

from handrail.mesh.errors import HandrailError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value."""

Decode: TypeAlias = Callable[[any_pb2.Any], Message]
"""Opens an `Any`. Raises `HandrailError` on failure."""

UNKNOWN = "@unknown"
"""The key for unknown fields: their wire format in base64."""

MAX_DEPTH = 20
"""The maximum nesting of a payload: messages, lists and maps, including the contents of a `Struct` and an opened `Any`.

Protobuf's parsers accept a hundred levels. A level of JSON in a `Struct` uses three, and an answer of the API adds a
few around it.
"""

_ANY = any_pb2.Any.DESCRIPTOR.full_name
_WELL_KNOWN = "google/protobuf/"


def render(message: Message, decode: Decode) -> dict[str, Json]:
    """Renders a message as proto3 JSON. A value that is not a JSON object goes under the key `value`.

    An `Any` that `decode` refuses is shown with its type and its bytes in base64. So is, in its place, a value without
    a JSON form, such as a timestamp beyond the year 9999, or a field mask with a capital. Unknown fields go under
    `@unknown`.
    """
    return _as_object(_value(message, decode))


def _value(message: Message, decode: Decode) -> Json:
    if message.DESCRIPTOR.full_name == _ANY:
        return _any(cast("any_pb2.Any", message), decode)
    if not _needs_opening(message):
        return _printed(message)
    shown = {field.json_name: _field(message, field, decode) for field, _ in message.ListFields()}
    unknown = _unknown(message)
    return shown | {UNKNOWN: _base64(unknown)} if unknown else shown


def _field(message: Message, field: descriptor.FieldDescriptor, decode: Decode) -> Json:
    value = getattr(message, field.name)
    if _is_plain(field):
        return _alone(message, field)
    assert field.message_type is not None
    if field.message_type.GetOptions().map_entry:
        return {_map_key(key): _value(item, decode) for key, item in value.items()}
    if field.is_repeated:
        return [_value(item, decode) for item in value]
    return _value(value, decode)


def _is_plain(field: descriptor.FieldDescriptor) -> bool:
    """Whether the library shows the field in full: its values are not messages, or have a special JSON form."""
    definition = field.message_type
    if definition is not None and definition.GetOptions().map_entry:
        definition = definition.fields_by_name["value"].message_type
    return definition is None or (definition.file.name.startswith(_WELL_KNOWN) and not _may_hold_any(definition))


def _needs_opening(message: Message) -> bool:
    """Whether the library alone would not show all of it: it contains an `Any` or unknown fields."""
    definition = cast("descriptor.Descriptor", message.DESCRIPTOR)
    if _may_hold_any(definition):
        return True
    if definition.file.name.startswith(_WELL_KNOWN):
        return False  # it has a special JSON form, with no place for unknown fields
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def _unknown(message: Message) -> bytes:
    """The wire format of the message's own unknown fields."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field, _ in message.ListFields():
        rest.ClearField(field.name)
    return rest.SerializeToString(deterministic=True)


def _alone(message: Message, field: descriptor.FieldDescriptor) -> Json:
    """One field as the library prints it, from a copy of the message with this field only."""
    copy = type(message)()
    copy.CopyFrom(message)
    for other, _ in message.ListFields():
        if other.number != field.number:
            copy.ClearField(other.name)
    printed = _printed(copy)
    return printed[field.json_name] if isinstance(printed, dict) else printed


def _printed(message: Message) -> Json:
    try:
        return cast("Json", MessageToDict(message))
    except (SerializeToJsonError, ValueError):  # a well-known type at the top raises ValueError for its own values
        return _base64(message.SerializeToString())


def _any(data: any_pb2.Any, decode: Decode) -> dict[str, Json]:
    try:
        inner = decode(data)
    except HandrailError:
        return {"@type": data.type_url, "value": _base64(data.value)}
    return {"@type": data.type_url} | _as_object(_value(inner, decode))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _as_object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {"value": value}


def _map_key(key: str | int | bool) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


@cache
def _may_hold_any(definition: descriptor.Descriptor) -> bool:
    """Whether messages of this type may contain an `Any` at any depth."""
    seen: set[str] = set()
    waiting = [definition]
    while waiting:
        current = waiting.pop()
        if current.full_name == _ANY:
            return True
        if current.full_name not in seen:
            seen.add(current.full_name)
            waiting.extend(field.message_type for field in current.fields if field.message_type is not None)
    return False


def depth(message: Message, decode: Decode) -> int:
    """The nesting depth of a message. Stops at MAX_DEPTH + 1, and returns 1 for types that can't be nested too deep.

    `decode` opens an `Any` without checking its depth.
    """
    if _is_shallow(cast("descriptor.Descriptor", message.DESCRIPTOR)):
        return 1
    deepest = 0
    waiting = [(message, 1)]
    while waiting and deepest <= MAX_DEPTH:
        current, level = waiting.pop()
        deepest = max(deepest, level)
        waiting += [(part, level + 1) for part in _parts(current, decode)]
    return deepest


def _parts(message: Message, decode: Decode) -> list[Message]:
    """The direct children of a message. A `Value` and a map entry do not count as levels of JSON."""
    name = message.DESCRIPTOR.full_name
    if name == _ANY:
        try:
            return [decode(cast("any_pb2.Any", message))]
        except HandrailError:
            return []
    parts: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            parts += [item for item in value.values() if isinstance(item, Message)]
        else:
            parts += value if field.is_repeated else [value]
    return [inner for part in parts for inner in (_parts(part, decode) if _is_value(part) else [part])]


def _is_value(message: Message) -> bool:
    return message.DESCRIPTOR.full_name == "google.protobuf.Value"


@cache
def _is_shallow(definition: descriptor.Descriptor) -> bool:
    """Whether messages of this type never exceed MAX_DEPTH: they refer to few types, and none recursively."""
    uses: dict[str, set[str]] = {}
    waiting = [definition]
    while waiting:
        current = waiting.pop()
        if current.full_name == _ANY or len(uses) > MAX_DEPTH:
            return False
        if current.full_name not in uses:
            parts = [field.message_type for field in current.fields if field.message_type is not None]
            uses[current.full_name] = {part.full_name for part in parts}
            waiting += parts
    try:
        TopologicalSorter(uses).prepare()
    except CycleError:
        return False
    return True
