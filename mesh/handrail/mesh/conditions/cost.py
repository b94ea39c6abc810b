"""The cost of an evaluation, computed before the engine runs: no clock influences the result of a condition.

The cost is an upper bound, computed from the checked expression and the sizes of the values that it reads, so every
reader of a flow computes the same number. Loops multiply: each node in a loop counts once per round, even where the
engine would skip it.

One unit is about 10 nanoseconds of one core. The figures were measured with conditions that were made to be slow
(cel-expr-python 0.1.3, CPU time on one core of a shared Xeon), each at the worst values found, and rounded up: 91 that
are allowed took at most 10 ns for a unit, and at most 35 ms in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from handrail.mesh.conditions.cost_reader import Reader, Run
from handrail.mesh.conditions.held_sizes import count_nodes, held, list_of
from handrail.mesh.conditions.sizes import Size
from handrail.mesh.conditions.small import BYTES, MESSAGES, small, small_list
from handrail.mesh.conditions.syntax import Tree
from handrail.mesh.errors import PolicyError

Value = Message | int | timedelta | Sequence[Message]
"""A variable of a condition."""

MOST = 5_000_000
"""The highest cost that is evaluated: about 50 ms of one core."""

_BASE = 1_000
"""Units of a call to the engine."""

_TOUCHED = 200
"""Units of taking the size of a message, in Python: 2 microseconds. Computing the cost has a cost itself."""

_BYTE, _VALUE = 6, 12
"""Units of copying messages for the engine: per byte if they hold only empty messages, otherwise per value."""

_SMALL = 200_000
"""Messages of at most this many bytes are charged per byte, whatever they hold."""


class Spent:
    """The cost of an evaluation so far. Taking the sizes of messages counts, too."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units = _BASE

    def touch(self, values: int) -> None:
        """Counts messages that are about to be examined. Raises `TooDear` if the total exceeds the limit."""
        self.units += _TOUCHED * values
        if self.units > MOST:
            raise TooDear(self.units)

    def copy(self, messages: Sequence[Message]) -> None:
        """Counts messages that are passed to the engine."""
        size = sum([message.ByteSize() for message in messages])
        self.units += _VALUE * len(messages)
        if size <= _SMALL:
            self.units += _BYTE * size
        else:
            self.units += size // _BYTE + _VALUE * sum(count_nodes(message, self.touch) for message in messages)


class TooDear(PolicyError):
    """An evaluation would cost more than is allowed."""

    def __init__(self, units: int) -> None:
        told = f"{units:,}" if units < 10**15 else "10^15"
        super().__init__(f"it would cost {told} or more; at most {MOST:,} is allowed")


class Cost:
    """The cost of one expression, prepared: the parts that don't depend on sizes are added up once."""

    def __init__(self, tree: Tree, kinds: Mapping[str, tuple[Descriptor, bool]]) -> None:
        """`kinds` are the types of the variables that are messages, and whether they are lists of them."""
        self._part = Reader(tree).part(tree.root)
        self._messages = frozenset(kinds)
        self.bound = self._bound(kinds)
        """The highest cost with small messages (`small`); None if it is not allowed."""

    def require(self, values: Mapping[str, Value]) -> None:
        """Raises `TooDear` as `of` does. It takes less time: of small messages, it examines nothing."""
        if self.bound is None or not _are_small(values) or not self._messages <= values.keys():
            self.of(values)

    def of(self, values: Mapping[str, Value]) -> int:
        """The cost of an evaluation with these values of the variables. Raises `TooDear` above the limit."""
        spent = Spent()
        names: dict[str, Callable[[], Size]] = {}
        for name, value in values.items():
            if isinstance(value, Message):
                spent.copy((value,))
                names[name] = partial(held, (value,), spent.touch)
            elif not isinstance(value, int | timedelta):
                spent.copy(value)
                names[name] = partial(list_of, value, spent.touch)
        return self.charge(spent, names)

    def _bound(self, kinds: Mapping[str, tuple[Descriptor, bool]]) -> int | None:
        spent = Spent()
        spent.units += _VALUE * MESSAGES + _BYTE * BYTES
        sizes = {
            name: partial(small_list if is_list else small, kind, spent.touch)
            for name, (kind, is_list) in kinds.items()
        }
        try:
            return self.charge(spent, sizes)
        except TooDear:
            return None

    def charge(self, spent: Spent, names: Mapping[str, Callable[[], Size]]) -> int:
        """The cost of an evaluation with values of these sizes. Raises `TooDear` above the limit."""
        run = Run(self._part.units, dict(names))
        if not self._part.is_free:
            self._part.visit(run, 1)
        units = spent.units + run.units
        if units > MOST:
            raise TooDear(units)
        return units


def _are_small(values: Mapping[str, Value]) -> bool:
    """Whether the messages have no more than `BYTES` in all, and are no more than `MESSAGES`."""
    size = number = 0
    for value in values.values():
        if isinstance(value, Message):
            size += value.ByteSize()
            number += 1
        elif not isinstance(value, int | timedelta):
            size += sum([message.ByteSize() for message in value])
            number += len(value)
    return size <= BYTES and number <= MESSAGES
