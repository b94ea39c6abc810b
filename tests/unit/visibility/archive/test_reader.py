"""What a reader gives, and what it says of messages that it can't give."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.visibility.archive.errors import Damaged, Finding, Kind, NoRecord
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import SALT_BYTES, Builder, Frame, Record, inflate
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.segment import Segment
from handrail.visibility.archive.segment_file import read_frame
from tests.support.archives import fill, give, record, writing

BYTES = st.binary(max_size=200)
MESSAGES = st.lists(
    st.tuples(
        st.integers(1, 50),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.integers(-(1 << 63), (1 << 63) - 1),
        BYTES,
        BYTES,
    ),
    max_size=30,
)


def recorded(drawn: list[tuple[int, str, int, bytes, bytes]]) -> list[Record]:
    """Messages whose sequences rise by the first number of each."""
    found: list[Record] = []
    for step, subject, time_ns, headers, body in drawn:
        found.append(Record(step + (found[-1].sequence if found else 0), subject, time_ns, headers, body))
    return found


@given(MESSAGES)
def test_a_frame_gives_back_what_it_was_made_of(drawn: list[tuple[int, str, int, bytes, bytes]]) -> None:
    messages = recorded(drawn)
    builder = Builder()
    for each in messages:
        builder.add(each)
    frame = inflate(builder.deflate(bytes(SALT_BYTES)))
    assert list(frame.records()) == messages
    assert frame.sequences() == [each.sequence for each in messages]
    for sequence in range(1, 100):
        assert frame.record(sequence) == next((each for each in messages if each.sequence == sequence), None)
        assert [each.sequence for each in frame.records(after=sequence)] == [
            each.sequence for each in messages if each.sequence > sequence
        ]


def test_a_subject_keeps_bytes_that_are_no_text() -> None:
    builder = Builder()
    subject = b"flow.\xff\xfe".decode(errors="surrogateescape")
    builder.add(record(1)._replace(subject=subject))
    found = inflate(builder.deflate(bytes(SALT_BYTES))).record(1)
    assert found is not None
    assert found.subject.encode(errors="surrogateescape") == b"flow.\xff\xfe"


@given(drawn=MESSAGES, cuts=st.sets(st.integers(0, 30)), frame_bytes=st.integers(1, 2000))
def test_an_archive_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, str, int, bytes, bytes]],
    cuts: set[int],
    frame_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("archive")
    messages = recorded(drawn)
    with writing(path, frame_bytes=frame_bytes) as writer:
        for index, message in enumerate(messages):
            if message.sequence > writer.next:
                writer.absent(writer.next, message.sequence - 1)
            writer.append(message)
            if index in cuts:
                writer.seal()
        writer.seal()
        assert writer.mark == (messages[-1].sequence if messages else 0)
    reader = Reader(Folder(path), frames=2)
    assert list(reader.iterate()) == messages
    assert reader.read_many([each.sequence for each in messages]) == messages
    middle = messages[len(messages) // 2].sequence if messages else 0
    assert list(reader.iterate(after=middle)) == [each for each in messages if each.sequence > middle]


def test_a_flow_is_read_with_each_frame_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "archive")
    inflated: list[int] = []

    def counting(file: BinaryIO, segment: Segment, index: int) -> Frame:
        inflated.append(index)
        return read_frame(file, segment, index)

    monkeypatch.setattr("handrail.visibility.archive.reader.read_frame", counting)
    reader = Reader(Folder(tmp_path / "archive"))
    wanted = [1, 2, 3, 11, 12, 29, 30]
    assert reader.read_many(wanted) == [record(each) for each in wanted]
    assert len(inflated) == 3
    assert reader.read_many([30, 1, 12, 1]) == [record(each) for each in (30, 1, 12, 1)]
    assert len(inflated) == 3, "a reader keeps frames"


def test_a_reader_keeps_no_more_frames_than_it_may(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive", segments=8)
    reader = Reader(Folder(tmp_path / "archive"), frames=3)
    assert reader.read_many([each.sequence for each in messages]) == messages
    assert len(reader._frames._found) == 3


def test_a_message_that_is_not_there_is_told_with_the_reason(tmp_path: Path) -> None:
    fill(tmp_path / "archive")
    reader = Reader(Folder(tmp_path / "archive"))
    with pytest.raises(NoRecord, match="sequence 7: the stream did not have it") as absent:
        reader.read(7)
    assert (absent.value.absent, absent.value.erased) == (True, False)
    for sequence in (0, 31, 1 << 70):
        with pytest.raises(NoRecord, match="it is not sealed yet") as unsealed:
            reader.read(sequence)
        assert (unsealed.value.absent, unsealed.value.erased) == (False, False)


def test_an_empty_archive_has_no_messages(tmp_path: Path) -> None:
    reader = Reader(Folder(tmp_path / "missing"))
    assert list(reader.iterate()) == []
    assert reader.read_many([]) == []
    with pytest.raises(NoRecord):
        reader.read(1)


def test_a_reader_sees_what_is_sealed_later(tmp_path: Path) -> None:
    with writing(tmp_path / "archive") as writer:
        reader = Reader(Folder(tmp_path / "archive"))
        for begin in (1, 11, 21):
            with pytest.raises(NoRecord):
                reader.read(begin)
            give(writer, range(begin, begin + 10))
            writer.seal()
            assert reader.read(begin) == record(begin)
            assert [each.sequence for each in reader.iterate(after=begin + 8)] == [begin + 9]


def test_p2_what_was_erased_is_not_served_by_a_reader_that_had_it(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive")
    reader = Reader(Folder(tmp_path / "archive"))
    assert reader.read(12) == record(12)
    pending = reader.iterate(after=10)
    assert next(pending) == record(11)
    with LockedFolder(tmp_path / "archive") as folder:
        rewrite(folder, 11, [12])
    with pytest.raises(NoRecord, match="sequence 12: it was erased") as erased:
        reader.read(12)
    assert (erased.value.absent, erased.value.erased) == (False, True)
    assert list(reader.iterate()) == [each for each in messages if each.sequence != 12]
    assert [each.sequence for each in pending][-1] == 30, "a walk goes on in the version that it began with"


def test_p2_a_missing_segment_is_named_and_the_others_are_served(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive", segments=4)
    folder = Folder(tmp_path / "archive")
    for missing in (1, 21):
        folder.file(missing).unlink()
    reader = Reader(folder)
    served = [each for each in messages if 10 < each.sequence <= 20 or each.sequence > 30]
    assert reader.read_many([each.sequence for each in served]) == served
    for sequence, after in ((5, 11), (25, 31)):
        with pytest.raises(Damaged, match=rf"{folder.file(after).name}, name: missing segment"):
            reader.read(sequence)
    findings: list[Finding] = []
    assert list(reader.iterate(on_damage=findings.append)) == served
    assert [(each.kind, each.file) for each in findings] == [
        (Kind.MISSING_SEGMENT, folder.file(11).name),
        (Kind.MISSING_SEGMENT, folder.file(31).name),
    ]
