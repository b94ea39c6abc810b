"""The sizes of existing messages. Each is computed on demand, and only as far as needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from handrail.mesh.conditions.sizes import NOTHING, SINGLE, Many, Opaque, Size, Text

Touch = Callable[[int], None]
"""Called with the number of messages that are about to be examined; raises if it is too much. Values that take less
time count as a part of a message."""

_OPAQUE = frozenset({"Any", "Struct", "Value", "ListValue"})
"""The well-known types whose content the engine unpacks: read as if each byte could be a value."""

TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
"""The kinds of fields whose values have a length."""

_TIMES = frozenset({"Timestamp", "Duration"})


class Held(Size):
    """Existing messages of one type; the value is one of them. Create it with `held`."""

    def __init__(self, messages: Sequence[Message], touch: Touch) -> None:
        self._messages = messages
        self._kind = cast("Descriptor", messages[0].DESCRIPTOR)
        self._touch = touch

    @cached_property
    def nodes(self) -> int:  # type: ignore[override]
        """The fields and items of the largest."""
        return max(count_nodes(message, self._touch) for message in self._messages)

    def field(self, name: str) -> Size:
        """What the messages have in a field; a list or map stands for those of all messages."""
        if len(self._messages) == 1:
            only = getattr(self._messages[0], name, None)
            if isinstance(only, str):  # the most frequent case
                return Text(len(only), (only,))
        self._touch(len(self._messages) >> 3)
        field = self._kind.fields_by_name.get(name)
        if field is None:
            return NOTHING
        values = [getattr(message, name) for message in self._messages]
        if field.is_repeated:
            return _HeldMany(field, values, self._touch)
        return _values(field, values, self._touch)


class _HeldMany(Size):
    """Existing lists or maps of one field."""

    def __init__(
        self, field: FieldDescriptor, values: Sequence[Sequence[object] | Mapping[object, object]], touch: Touch
    ) -> None:
        self._field = field
        self._values = values
        self._touch = touch
        self.length = max(map(len, values), default=0)

    @cached_property
    def item(self) -> Size:
        """Any item, or value, of any of them."""
        self._touch(sum(map(len, self._values)) >> 4)
        entry = entry_of(self._field)
        if entry is None:
            return _values(self._field, [item for items in self._values for item in items], self._touch)
        maps = cast("Sequence[Mapping[object, object]]", self._values)
        return _values(entry.fields_by_name["value"], [value for each in maps for value in each.values()], self._touch)

    @cached_property
    def key(self) -> Size:
        """Any item of a list, any key of a map."""
        entry = entry_of(self._field)
        if entry is None:
            return self.item
        self._touch(sum(map(len, self._values)) >> 4)
        return _values(entry.fields_by_name["key"], [key for each in self._values for key in each], self._touch)

    @property
    def nodes(self) -> int:  # type: ignore[override]
        """The largest of them, as if each item were the largest."""
        return 1 + self.length * (self.item.nodes + (self.key.nodes if entry_of(self._field) is not None else 0))


def held(messages: Sequence[Message], touch: Touch) -> Size:
    """One of these messages, which are all of one type."""
    kind = cast("Descriptor", messages[0].DESCRIPTOR)
    if is_time(kind):
        return SINGLE
    if is_opaque(kind):
        touch(len(messages))
        return Opaque(max(message.ByteSize() for message in messages))
    return Held(messages, touch)


def list_of(messages: Sequence[Message], touch: Touch) -> Size:
    """A list of existing messages, all of one type."""
    return Many(len(messages), held(messages, touch) if messages else NOTHING)


def count_nodes(message: Message, touch: Touch) -> int:
    """How many values a message holds, itself included. Long texts count as several."""
    if is_opaque(cast("Descriptor", message.DESCRIPTOR)):
        return 1 + message.ByteSize()
    nodes = 1
    touch(1)
    for field, value in message.ListFields():
        if not field.is_repeated:
            nodes += _nodes_of(value, touch)
        elif field.message_type is None and field.type not in TEXTS:
            nodes += len(value)
        elif entry_of(field) is None:
            touch(len(value) >> 4)
            nodes += sum(_nodes_of(each, touch) for each in value)
        else:
            touch(len(value) >> 1)
            nodes += sum(_nodes_of(key, touch) + _nodes_of(value[key], touch) for key in value)
    return nodes


def _nodes_of(value: object, touch: Touch) -> int:
    if isinstance(value, Message):
        return count_nodes(value, touch)
    return 1 + (len(value) >> 6) if isinstance(value, str | bytes) else 1


def _values(field: FieldDescriptor, values: Sequence[object], touch: Touch) -> Size:
    """The size of any of these values of a field, which are not lists."""
    if not values:
        return NOTHING
    if field.message_type is not None:
        return held(cast("Sequence[Message]", values), touch)
    if field.type == FieldDescriptor.TYPE_STRING:
        texts = cast("Sequence[str]", values)
        return Text(max(map(len, texts)), texts)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return Text(max(map(len, cast("Sequence[bytes]", values))))
    return SINGLE


def entry_of(field: FieldDescriptor) -> Descriptor | None:
    """The entries of a map, or None for a list."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None


def is_opaque(kind: Descriptor) -> bool:
    """Whether the engine reads such a message as something else: JSON, a wrapped value, the message in an `Any`."""
    return kind.file.package == "google.protobuf" and (kind.name in _OPAQUE or kind.name.endswith("Value"))


def is_time(kind: Descriptor) -> bool:
    """Whether the engine reads such a message as a time or a duration."""
    return kind.file.package == "google.protobuf" and kind.name in _TIMES
