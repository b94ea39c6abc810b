"""Which flows this replica folded whole, lately, and found over: so that nobody here folds them once more."""

from __future__ import annotations

_GENERATION = 100_000
"""Flows; two generations of them take some 15 MB."""


class Finished:
    """The last sequences of flows that are over, of the newest 100,000 flows at least.

    A sequence stands for a whole flow at that moment: a message that came later has another.
    """

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def add(self, last_sequence: int) -> None:
        """A flow whose newest message this is was folded whole, and is over."""
        self._young.add(last_sequence)
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, set()

    def clear(self) -> None:
        """Nothing is known of any flow any more."""
        self._young, self._old = set(), set()

    def __contains__(self, last_sequence: int) -> bool:
        return last_sequence in self._young or last_sequence in self._old
