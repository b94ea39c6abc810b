"""Budgets: how many calls may be in progress at a time, in all and for each holder. Pure: it only counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most calls in progress: `total` of all holders together, `each` of one holder. Both at least 1."""

    total: int
    each: int

    def __post_init__(self) -> None:
        if self.each < 1 or self.total < 1:
            raise ValueError(f"a limit is at least 1, not {self.total} in all and {self.each} for each")


class Full(Enum):
    """Which limit a call would pass."""

    HOLDER = auto()
    """Its holder has as many calls in progress as one holder may have."""
    TOTAL = auto()
    """All holders together have as many as there may be."""


class Budget:
    """Counts the calls in progress against a limit.

    A holder at its own limit is told so even if the total is reached as well: its remedy is to end a call of its own.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, holder: str) -> Full | None:
        """Counts one more call of this holder, or returns the limit that it would pass."""
        if self._held[holder] >= self.limit.each:
            return Full.HOLDER
        if self._total >= self.limit.total:
            return Full.TOTAL
        self._held[holder] += 1
        self._total += 1
        return None

    def give_back(self, holder: str) -> None:
        """Ends one call that was counted. Raises ValueError if this holder has none."""
        if self._held[holder] < 1:
            raise ValueError(f"{holder} has no call in progress")
        self._held[holder] -= 1
        self._total -= 1
        if not self._held[holder]:
            del self._held[holder]

    @property
    def in_progress(self) -> int:
        """The number of calls in progress."""
        return self._total

    @property
    def holders(self) -> int:
        """The number of holders with a call in progress."""
        return len(self._held)
