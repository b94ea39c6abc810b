"""The sizes of the values in a condition, which determine its cost.

A `Size` represents all values that a part of an expression may have, with an upper bound of their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property


class Size:
    """The size of a single value: a number, a bool, a time. Base of all others.

    `length` is the number of characters, bytes, items or entries; `nodes` how many values a comparison as a whole
    visits; `texts` the texts that it may be, if they are known.
    """

    length = 0
    nodes = 1
    texts: Sequence[str] | None = None

    @property
    def item(self) -> Size:
        """An item of a list, or a value of a map."""
        return self

    @property
    def key(self) -> Size:
        """What a loop runs over: an item of a list, a key of a map."""
        return self.item

    def field(self, name: str) -> Size:
        """A field of a message, or a value of a map."""
        return self.item


SINGLE = Size()
"""A value whose size does not matter."""


class Text(Size):
    """A text, or bytes."""

    def __init__(self, length: int, texts: Sequence[str] | None = None) -> None:
        self.length = length
        self.texts = texts

    @property
    def nodes(self) -> int:  # type: ignore[override]
        """One, and one more for every 64 characters."""
        return 1 + (self.length >> 6)

    @property
    def item(self) -> Size:
        """A text has no items."""
        return SINGLE


class Many(Size):
    """A list, a map or a message that the expression creates: its length, and the sizes of its contents."""

    def __init__(self, length: int, item: Size, key: Size | None = None) -> None:
        self.length = length
        self._item = item
        self._key = key

    @cached_property
    def nodes(self) -> int:  # type: ignore[override]
        """The value itself and all of its contents."""
        return 1 + self.length * (self._item.nodes + (self._key.nodes if self._key is not None else 0))

    @property
    def item(self) -> Size:
        """Any item."""
        return self._item

    @property
    def key(self) -> Size:
        """An item of a list, a key of a map."""
        return self._item if self._key is None else self._key


class Nothing(Size):
    """The item of an empty list: no value at all."""

    nodes = 0


NOTHING = Nothing()


class Opaque(Size):
    """A value with this many bytes; nothing else is known about it."""

    def __init__(self, length: int) -> None:
        self.length = length

    @property
    def nodes(self) -> int:  # type: ignore[override]
        """Each byte may be a value."""
        return 1 + self.length


class AnyOf(Size):
    """A value that is one of several."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        self._sizes = sizes

    @cached_property
    def length(self) -> int:  # type: ignore[override]
        """The largest length."""
        return max(size.length for size in self._sizes)

    @cached_property
    def nodes(self) -> int:  # type: ignore[override]
        """The largest number."""
        return max(size.nodes for size in self._sizes)

    @cached_property
    def item(self) -> Size:
        """An item of any of them."""
        return any_of([size.item for size in self._sizes])

    @cached_property
    def key(self) -> Size:
        """A key of any of them."""
        return any_of([size.key for size in self._sizes])

    def field(self, name: str) -> Size:
        """A field of any of them."""
        return any_of([size.field(name) for size in self._sizes])


def copied(size: Size) -> int:
    """The units of a text that the engine copies: it does so at each access."""
    return size.length >> 1 if isinstance(size, Text | AnyOf | Opaque) else 0


def copied_contents(size: Size) -> int:
    """The units of all texts in a list or map; 0 for other values."""
    if not size.length or isinstance(size, Text | Opaque):
        return 0
    item, key = size.item, size.key
    return size.length * (copied(item) + (0 if key is item else copied(key)))


def any_of(sizes: Sequence[Size]) -> Size:
    """A value that is one of these; NOTHING if there are none."""
    some = [size for size in sizes if size is not NOTHING]
    if not some:
        return NOTHING
    return some[0] if len(some) == 1 or all(size is some[0] for size in some) else AnyOf(some)
