"""Remembers which messages belong to closed flows that this replica folded, so that the sweep need not read them."""

from __future__ import annotations

from collections.abc import Iterable

_BLOCK = 1 << 13
"""Messages per block, one byte each: in most of the stream, nearly every message belongs to a closed flow."""

_BLOCKS_AT_MOST = 2048
"""The newest 16 million messages, in 16 MB."""


class Finished:
    """The sequences of messages of closed flows.

    A flow may get another message after it was closed: that one is not among them until the flow is folded again.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self.epoch = 0
        """How often everything was forgotten: what was delivered before then may be lost, and is not to be added."""

    def add(self, sequences: Iterable[int]) -> None:
        """Remembers messages of a flow that was folded with all of them and is closed."""
        for sequence in sequences:
            number, place = divmod(sequence, _BLOCK)
            block = self._blocks.get(number)
            if block is None:
                block = self._begin(number)
            block[place] = 1

    def clear(self) -> None:
        """Forgets everything."""
        self._blocks.clear()
        self.epoch += 1

    def first_other(self, after: int) -> int:
        """Returns the first sequence after this one that is not among them, whether or not the stream has it."""
        number, place = divmod(after + 1, _BLOCK)
        while (block := self._blocks.get(number)) is not None:
            found = block.find(0, place)
            if found >= 0:
                place = found
                break
            number, place = number + 1, 0
        return number * _BLOCK + place

    def __contains__(self, sequence: int) -> bool:
        block = self._blocks.get(sequence // _BLOCK)
        return block is not None and bool(block[sequence % _BLOCK])

    def _begin(self, number: int) -> bytearray:
        block = self._blocks[number] = bytearray(_BLOCK)
        if len(self._blocks) > _BLOCKS_AT_MOST:
            del self._blocks[min(self._blocks)]
        return block
