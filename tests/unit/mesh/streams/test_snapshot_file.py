"""A snapshot's file is read to its end, or said not to be whole."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from handrail.mesh.streams.s2 import NotWhole, inflated
from handrail.mesh.streams.snapshot_file import SnapshotFile

IDENTIFIER = b"\xff\x06\x00\x00S2sTwO"
END = bytes(5)


def number(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def entry(name: bytes, *, nanoseconds: int = 0, sequence: int = 0, headers: bytes = b"", body: bytes = b"") -> bytes:
    numbers = (len(name), nanoseconds << 1, sequence, len(headers), len(body))
    return b"".join(map(number, numbers)) + name + headers + body


def chunk(kind: int, data: bytes) -> bytes:
    return bytes((kind,)) + (len(data) + 4).to_bytes(3, "little") + bytes(4) + data


def compressed(text: str, *parts: bytes) -> bytes:
    return chunk(0, number(len(text)) + b"".join(parts))


TEXT = (
    b"NATSARC1"
    + entry(b"state.json", body=b"{}")
    + entry(b"consumers/decide", body=b"{}")
    + entry(b"flow.a", nanoseconds=1_500_002_999, sequence=7, headers=b"NATS/1.0\r\n\r\n", body=b"one")
    + entry(b"flow.b", nanoseconds=2_000_000_000, sequence=9, body=b"two" * 100)
    + END
)


def written(folder: Path, text: bytes) -> SnapshotFile:
    """A file with this text, in several parts."""
    file = folder / "snapshot"
    parts = [text[at : at + 50] for at in range(0, len(text), 50)]
    file.write_bytes(IDENTIFIER + b"".join(chunk(1, part) for part in parts))
    return SnapshotFile(file)


def test_the_messages_are_those_that_the_stream_has(tmp_path: Path) -> None:
    snapshot = written(tmp_path, TEXT)
    first, second = snapshot.messages()
    assert (first.subject, first.sequence, first.body) == ("flow.a", 7, b"one")
    assert first.time.isoformat() == "1970-01-01T00:00:01.500002+00:00"
    assert (second.subject, second.sequence, second.body) == ("flow.b", 9, b"two" * 100)
    assert snapshot.consumers == {"decide"}


@pytest.mark.parametrize("size", range(len(TEXT)))
def test_a_text_that_is_cut_anywhere_is_not_whole_p2(tmp_path: Path, size: int) -> None:
    with pytest.raises(NotWhole):
        list(written(tmp_path, TEXT[:size]).messages())


def test_a_file_that_is_cut_within_a_part_is_not_whole_p2(tmp_path: Path) -> None:
    snapshot = written(tmp_path, TEXT)
    file = tmp_path / "snapshot"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(NotWhole, match="cut short"):
        list(snapshot.messages())


def test_what_follows_the_end_is_told_p2(tmp_path: Path) -> None:
    with pytest.raises(NotWhole, match="something follows"):
        list(written(tmp_path, TEXT + b"x").messages())


@pytest.mark.parametrize(
    "text, parts",
    [
        ("abcd", (b"\x0cabcd",)),
        ("a" * 70, (b"\xf0\x45" + b"a" * 70,)),  # a literal whose length takes a byte
        ("abcdabcd", (b"\x0cabcd", b"\x01\x04")),  # four bytes, from four back
        ("ab" * 6, (b"\x04ab", b"\x26\x02\x00")),  # ten bytes, from two back: they overlap
        ("abcdabcdabcd", (b"\x0cabcd", b"\x01\x04", b"\x01\x00")),  # the same distance again
        ("abcd" * 5, (b"\x0cabcd", b"\x01\x04", b"\x15\x00\x04")),  # and again, with a length of its own
        ("abcdabcd", (b"\x0cabcd", b"\x0f\x04\x00\x00\x00")),  # with a distance of four bytes
    ],
)
def test_every_kind_of_copy_is_inflated(text: str, parts: tuple[bytes, ...]) -> None:
    assert b"".join(inflated(BytesIO(IDENTIFIER + compressed(text, *parts)))) == text.encode()


@pytest.mark.parametrize(
    "parts",
    [(b"\x0cabc",), (b"\x0cabcd", b"\x01\x05"), (b"\x01\x00",), (b"\x0cabcd", b"\x01"), (b"\x0cabcd\x0cabcd",)],
)
def test_a_part_that_is_not_right_is_told_p2(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(NotWhole):
        list(inflated(BytesIO(IDENTIFIER + compressed("abcd", *parts))))


def test_a_part_of_an_unknown_kind_is_told_p2() -> None:
    with pytest.raises(NotWhole, match="unknown kind 2"):
        list(inflated(BytesIO(IDENTIFIER + chunk(2, b""))))
