"""Remembers which flows this replica recently folded and found closed, so that it does not fold them again."""

from __future__ import annotations

_GENERATION = 100_000
"""Flows per generation; two generations take some 15 MB."""


class Finished:
    """The last sequences of closed flows, at least of the newest 100,000.

    A sequence identifies a flow at one moment: after a later message its last sequence is another one.
    """

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def add(self, last_sequence: int) -> None:
        """Remembers the last sequence of a flow that was folded completely and is closed."""
        self._young.add(last_sequence)
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, set()

    def clear(self) -> None:
        """Forgets all flows."""
        self._young, self._old = set(), set()

    def __contains__(self, last_sequence: int) -> bool:
        return last_sequence in self._young or last_sequence in self._old
