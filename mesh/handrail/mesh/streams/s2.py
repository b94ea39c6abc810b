"""Inflates S2, the form of Snappy with which the broker compresses snapshots. Pure.

Checksums are not compared: the standard library lacks CRC-32C. Whoever relies on the text compares what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_COMPRESSED, _PLAIN, _FIRST_SKIPPABLE = 0x00, 0x01, 0x80
_CHECKSUM = 4
_LITERAL, _COPY, _COPY_FAR = 0, 1, 2
_REPEATS = (4, 1 << 8, 1 << 16)
"""What is added to the length of a repeated copy, by the bytes that the length takes."""


class NotWhole(Exception):
    """The text can't be read to its end; says what is wrong."""


def inflated(file: BinaryIO) -> Iterator[bytes]:
    """Yields the parts of a text. Raises NotWhole."""
    while head := file.read(4):
        size = int.from_bytes(head[1:], "little")
        data = file.read(size)
        if len(head) < 4 or len(data) < size:
            raise NotWhole("it is cut short")
        if head[0] == _COMPRESSED:
            try:
                yield _inflated(data[_CHECKSUM:])
            except IndexError as error:
                raise NotWhole("a part of it is cut short") from error
        elif head[0] == _PLAIN:
            yield data[_CHECKSUM:]
        elif head[0] < _FIRST_SKIPPABLE:
            raise NotWhole(f"a part has the unknown kind {head[0]}")


def _inflated(block: bytes) -> bytes:
    wanted, at = _number(block)
    text = bytearray()
    distance = 0
    while at < len(block):
        tag = block[at]
        kind, length = tag & 3, tag >> 2
        at += 1
        if kind == _LITERAL:
            if length >= 60:
                width = length - 59
                length = int.from_bytes(block[at : at + width], "little")
                at += width
            text += block[at : at + length + 1]
            at += length + 1
            continue
        if kind == _COPY:
            near, length = (tag & 0xE0) << 3 | block[at], length & 7
            at += 1
            if near:
                distance = near
            elif length > 4:
                width = length - 4
                length = int.from_bytes(block[at : at + width], "little") + _REPEATS[width - 1]
                at += width
            length += 4
        else:
            width = 2 if kind == _COPY_FAR else 4
            distance, length = int.from_bytes(block[at : at + width], "little"), length + 1
            at += width
        begin = len(text) - distance
        if not distance or begin < 0:
            raise NotWhole("a part of it refers to nothing")
        copied = text[begin : begin + length]
        text += copied if distance >= length else (copied * (length // distance + 1))[:length]
    if len(text) != wanted:
        raise NotWhole("a part of it has another length than it says")
    return bytes(text)


def _number(block: bytes) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = at = 0
    while block[at] & 0x80:
        value |= (block[at] & 0x7F) << 7 * at
        at += 1
    return value | block[at] << 7 * at, at + 1
