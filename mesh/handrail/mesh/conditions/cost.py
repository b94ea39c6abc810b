"""What an evaluation costs, told before the engine is asked: no clock decides what a condition says.

The cost is an upper bound. It is computed from the checked expression and the sizes of the values it reads, so every
reader of a flow comes to the same number. Loops multiply: each node below one counts as often as its loops go round,
whatever the engine may leave out.

One unit is about 10 nanoseconds of one core. The figures were measured with conditions that were made to be slow
(cel-expr-python 0.1.3, CPU time on one core of a shared Xeon), each at the worst values found, and rounded up: 91 that
are allowed took at most 10 ns for a unit, and at most 35 ms in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from google.protobuf.message import Message

from handrail.mesh.conditions.cost_reader import Reader, Run
from handrail.mesh.conditions.held_sizes import count_nodes, held, list_of
from handrail.mesh.conditions.sizes import Size
from handrail.mesh.conditions.syntax import Tree
from handrail.mesh.errors import PolicyError

Value = Message | int | timedelta | Sequence[Message]
"""A variable of a condition."""

MOST = 5_000_000
"""The highest cost that is evaluated: about 50 ms of one core."""

_BASE = 1_000
"""A call of the engine."""

_TOUCHED = 200
"""A message of which the size was taken, in Python: 2 microseconds. What takes long to tell is dear for that alone."""

_BYTE, _VALUE = 6, 12
"""Messages are copied for the engine: a byte where they hold nothing but empty messages, and a value where not."""

_SMALL = 200_000
"""Up to so many bytes are reckoned by the byte, whatever they hold."""


class Spent:
    """What an evaluation has cost so far. Taking the sizes of messages costs something, too."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units = _BASE

    def touch(self, values: int) -> None:
        """Counts messages that are about to be looked at. Raises `TooDear` when all is above the limit."""
        self.units += _TOUCHED * values
        if self.units > MOST:
            raise TooDear(self.units)

    def copy(self, messages: Sequence[Message]) -> None:
        """Counts messages that are handed to the engine."""
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
    """The cost of one expression, prepared: what does not depend on sizes is added up once."""

    def __init__(self, tree: Tree) -> None:
        self._part = Reader(tree).part(tree.root)

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

    def charge(self, spent: Spent, names: Mapping[str, Callable[[], Size]]) -> int:
        """The cost of an evaluation with values of these sizes. Raises `TooDear` above the limit."""
        run = Run(self._part.units, dict(names))
        if not self._part.is_free:
            self._part.visit(run, 1)
        units = spent.units + run.units
        if units > MOST:
            raise TooDear(units)
        return units
