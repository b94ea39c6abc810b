"""The format as docs/archive.md has it: read here by code that shares none with the archive, and never to change."""

from __future__ import annotations

import base64
import json
import struct
from hashlib import sha256
from pathlib import Path

import zstandard

from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verify import verify
from tests.support.archives import FLOW, fill

FIRST_RELEASE = """
SEFORFJBSUwBAAAAjAAAAHsic3RyZWFtIjoiRkxPVyIsImNyZWF0ZWRfbnMiOiIxNzAwMDAwMDAwMTIzNDU2Nzg5IiwiZmlyc3QiOjEsInByZXZp
b3VzIjoiZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NSJ9KLUv/SRVqQIAhdiO
03bH+IretwCf09HymwEAAAABAAAAAAAAAAHKxHH+nJcXIAAAAAAAAAAlAAAAZmxvdy5yZWZ1bmQuZjEuZXZlbnQuYS5lMS54LnYxLlRmaXJzdA+K
bZUotS/9JGtZAwCoT0noWYMKGM4kME+Q/FlfAQAAAAQAAAAAAAAAApRfrf6clxcgAAAAEgAAADsAAABmbG93LnJlZnVuZC5mMS5ldmVudC5hLmUy
LngudjEuVE5BVFMvMS4wDQpBOiBiDQoNCnp3ZWl0ZSDDvAr0RYwotS/9JBShAADogakaxzp9MqauKUN0NnM2AAAAANHivPJ7Imxhc3QiOjUsImNv
dW50IjoyLCJhYnNlbnQiOltbMiwzXV0sImZyYW1lcyI6W1sxLDEsOTgsIjU1MjU4ZDFhMjVmNzYzNzUxZDEyOGY2MWE0MDMyYWI4ZmVmZmEyNTMz
MDc5OTBhNmY3MzlhM2E4ZGI1YmQzOWIiXSxbNCwxLDEyMCwiNWUwYjVlYjY3YjZjY2NlOGY1ODI3M2Y4NmI3YmEyYTUxZDEyZjBlNzgxNWUyODBi
MjFkZmI2MjMyYTI5MTEwYiJdLFs1LDAsMzMsIjZjY2Q4NGYzY2FmYzhhMWExMmFlZjM0MGUxZGY1OWE5ODQ2YTEzYjNjZDM2M2QyOWU1ZmMzNTky
YWZhNzM4NGUiXV0sInJld3JpdGUiOnsicmVwbGFjZXMiOlsiNDUxMTA5ODNkNDhhOTFiY2Q1ZDU3NzQwOWZjOWU3YmEwNTdlZDZlNDUwMWVmMjE2
ZDAyN2U2NzcxZGU4OTJiOSJdLCJvcmlnaW5hbCI6IntcImxhc3RcIjo1LFwiY291bnRcIjozLFwiYWJzZW50XCI6W1syLDNdXSxcImZyYW1lc1wi
OltbMSwxLDk4LFwiNTUyNThkMWEyNWY3NjM3NTFkMTI4ZjYxYTQwMzJhYjhmZWZmYTI1MzMwNzk5MGE2ZjczOWEzYThkYjViZDM5YlwiXSxbNCwx
LDEyMCxcIjVlMGI1ZWI2N2I2Y2NjZThmNTgyNzNmODZiN2JhMmE1MWQxMmYwZTc4MTVlMjgwYjIxZGZiNjIzMmEyOTExMGJcIl0sWzUsMSwxMDUs
XCJkZWQyNGU1NDAwMWIwNWE4NzUzOGMxYjllYzdmZDFlMGMyNTg4MjY5YTExMDkzOTY3NDQxY2I3ZmMyYWJmYTMzXCJdXSxcInJld3JpdGVcIjpu
dWxsfSIsImVyYXNlZCI6W1s1LDVdXX19xQIAAFFUs0KFAareWdO4sifXDAp7IrndHgTgGNE3sskmlYgDClNFQUxFRAo=
"""
"""A segment of format 1: three messages in three frames, two sequences absent, and the last message erased since."""

MESSAGES = [
    Record(1, "flow.refund.f1.event.a.e1.x.v1.T", 1_700_000_001_000_000_001, b"", b"first"),
    Record(
        4,
        "flow.refund.f1.event.a.e2.x.v1.T",
        1_700_000_002_000_000_002,
        b"NATS/1.0\r\nA: b\r\n\r\n",
        "zweite ü".encode(),
    ),
]


def read(data: bytes, previous: str) -> tuple[str, dict[str, object], list[Record]]:
    """Reads a segment by the page about it. Returns its link, its footer, and its messages."""
    magic, version, header_size = struct.unpack_from("<8sII", data)
    footer_size, digest, end = struct.unpack("<I32s8s", data[-44:])
    assert (magic, version, end) == (b"HANDRAIL", 1, b"\nSEALED\n")
    header, footer = data[: 16 + header_size], data[-44 - footer_size : -44]
    assert sha256(header + footer).digest() == digest
    fields = json.loads(footer)
    about = json.loads(header[16:])
    assert about["previous"] == previous
    messages: list[Record] = []
    at = len(header)
    for first, count, size, frame_digest in fields["frames"]:
        frame = data[at : at + size]
        at += size
        assert sha256(frame).hexdigest() == frame_digest
        messages += inflated(zstandard.ZstdDecompressor().decompress(frame), count)
        assert count == 0 or messages[-count].sequence >= first
    assert at == len(data) - 44 - footer_size
    rewrite = fields["rewrite"]
    erased = rewrite["erased"] if rewrite else []
    listed = {each for a, b in [*fields["absent"], *erased] for each in range(a, b + 1)}
    assert {each.sequence for each in messages} | listed == set(range(about["first"], fields["last"] + 1))
    original = rewrite["original"].encode() if rewrite else footer
    return sha256(header + original).hexdigest(), fields, messages


def inflated(frame: bytes, count: int) -> list[Record]:
    """The messages of an inflated frame."""
    assert struct.unpack_from("<I", frame, 16) == (count,)
    text = frame[20 + 28 * count :]
    found = []
    begin = 0
    for index in range(count):
        sequence, time_ns, subject, headers, end = struct.unpack_from("<QqIII", frame, 20 + 28 * index)
        middle = begin + subject
        name = text[begin:middle].decode()
        found.append(Record(sequence, name, time_ns, text[middle : middle + headers], text[middle + headers : end]))
        begin = end
    assert begin == len(text)
    return found


def test_a_segment_of_the_first_release_stays_readable(tmp_path: Path) -> None:
    data = base64.b64decode(FIRST_RELEASE)
    Folder(tmp_path).file(1).write_bytes(data)
    assert list(Reader(Folder(tmp_path)).iterate()) == MESSAGES
    assert list(verify(Folder(tmp_path), at_least=5)) == []
    _, footer, messages = read(data, sha256(b"").hexdigest())
    assert messages == MESSAGES
    assert footer["absent"] == [[2, 3]]


def test_an_archive_is_what_the_page_says(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive")
    link = sha256(b"").hexdigest()
    found: list[Record] = []
    for path in sorted((tmp_path / "archive").glob("*.segment")):
        data = path.read_bytes()
        (size,) = struct.unpack_from("<I", data, 12)
        about = json.loads(data[16 : 16 + size])
        assert (about["stream"], about["created_ns"]) == ("FLOW", str(FLOW.created_ns))
        assert path.name == f"{about['first']:020}.segment"
        link, _, more = read(data, link)
        found += more
    assert found == messages
