"""How many verdicts of the archive the index has to have, so that no archived flow is missing in it."""

from __future__ import annotations


class ShelfMark:
    """Set once all verdicts were taken, and then ever higher: an index with fewer was begun anew."""

    def __init__(self) -> None:
        self._needed: int | None = None

    def reached(self, verdicts: int) -> None:
        """Notes that the index has taken as many verdicts, and that the archive had no more."""
        self._needed = max(verdicts, self._needed or 0)

    def has_all(self, verdicts: int) -> bool:
        """Whether an index with as many verdicts lacks no archived flow. What is archived later, it has already."""
        return self._needed is not None and verdicts >= self._needed
