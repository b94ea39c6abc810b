"""The sequences that were purged from FLOW, as the archive's verdicts tell: a bit for each."""

from __future__ import annotations

from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.verdict_log import numbered

_LONGEST = 100_000
"""The most sequences of a gap that are looked at one by one: of a longer one, the stream's leader is asked."""


class PurgedSequences:
    """Tells of sequences beyond `after` whether they were purged."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._bits = bytearray()

    @classmethod
    def of(cls, folder: Folder, *, after: int) -> PurgedSequences:
        """Reads all verdicts of an archive. Raises Damaged."""
        self = cls(after)
        for _, verdict in numbered(folder):
            for sequence in verdict.sequences:
                if sequence > after:
                    self._add(sequence)
        return self

    def has_all(self, first: int, last: int) -> bool:
        """Whether all of these sequences were purged; False if that is too many to tell."""
        return last - first < _LONGEST and all(map(self._has, range(first, last + 1)))

    def _add(self, sequence: int) -> None:
        index, bit = divmod(sequence - self._after, 8)
        if index >= len(self._bits):
            self._bits.extend(bytes(index + 1024 - len(self._bits)))
        self._bits[index] |= 1 << bit

    def _has(self, sequence: int) -> bool:
        index, bit = divmod(sequence - self._after, 8)
        return 0 <= index < len(self._bits) and bool(self._bits[index] >> bit & 1)
