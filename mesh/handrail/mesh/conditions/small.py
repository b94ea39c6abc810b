"""Sizes that bound those of all small messages: if a condition is cheap with them, nobody has to look at its values.

They answer what `held_sizes` answers, in the same structure, with the largest that messages of `BYTES` in all can have.
A text is `Opaque`, which is charged at least as much as a text, a missing one, or a choice of several. They also count
the messages that `held_sizes` would examine.
"""

from __future__ import annotations

from functools import cached_property

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from handrail.mesh.conditions.held_sizes import TEXTS, Touch, entry_of, is_opaque, is_time
from handrail.mesh.conditions.sizes import NOTHING, SINGLE, Many, Opaque, Size

BYTES = 1_000
"""The most bytes of small messages, all variables of a condition together."""

MESSAGES = 16
"""The most messages that are variables of a condition, or items of one."""


class _Small(Size):
    """One of so many messages of a type."""

    def __init__(self, kind: Descriptor, number: int, touch: Touch) -> None:
        self._kind = kind
        self._number = number
        self._touch = touch

    @cached_property
    def nodes(self) -> int:  # type: ignore[override]
        """Each value takes a byte at least, but for the message itself."""
        self._touch(self._number + BYTES)
        return 1 + BYTES

    def field(self, name: str) -> Size:
        """What the messages have in a field."""
        self._touch(self._number >> 3)
        field = self._kind.fields_by_name.get(name)
        if field is None:
            return NOTHING
        if field.is_repeated:
            return _SmallMany(field, self._touch)
        return _value(field, self._number, self._touch)


class _SmallMany(Size):
    """Lists or maps of one field."""

    length = BYTES

    def __init__(self, field: FieldDescriptor, touch: Touch) -> None:
        self._field = field
        self._touch = touch

    @cached_property
    def item(self) -> Size:
        """Any item, or value, of any of them."""
        self._touch(BYTES >> 4)
        entry = entry_of(self._field)
        return _value(self._field if entry is None else entry.fields_by_name["value"], BYTES, self._touch)

    @cached_property
    def key(self) -> Size:
        """Any item of a list, any key of a map."""
        entry = entry_of(self._field)
        if entry is None:
            return self.item
        self._touch(BYTES >> 4)
        return _value(entry.fields_by_name["key"], BYTES, self._touch)

    @property
    def nodes(self) -> int:  # type: ignore[override]
        """As if each item were the largest."""
        return 1 + self.length * (self.item.nodes + (self.key.nodes if entry_of(self._field) is not None else 0))


def small(kind: Descriptor, touch: Touch, *, number: int = 1) -> Size:
    """One of so many messages of a type."""
    if is_time(kind):
        return SINGLE
    if is_opaque(kind):
        touch(number)
        return Opaque(BYTES)
    return _Small(kind, number, touch)


def small_list(kind: Descriptor, touch: Touch) -> Size:
    """A list of messages of a type."""
    return Many(MESSAGES, small(kind, touch, number=MESSAGES))


def _value(field: FieldDescriptor, number: int, touch: Touch) -> Size:
    """One of so many values of a field, which are not lists."""
    if field.message_type is not None:
        return small(field.message_type, touch, number=number)
    return Opaque(BYTES) if field.type in TEXTS else SINGLE
