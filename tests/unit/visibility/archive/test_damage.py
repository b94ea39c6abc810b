"""P2: whatever happens to the files, either the very same messages come out, or a finding that names the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.visibility.archive.errors import Damaged, Finding, Kind
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.segment import Stream
from handrail.visibility.archive.verify import verify
from tests.support.archives import FLOW, fill, give, writing

FIRSTS = (1, 11, 21)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """An archive of three segments, the second rewritten, and its messages."""
    path = tmp_path_factory.mktemp("whole") / "archive"
    messages = fill(path)
    with LockedFolder(path) as folder:
        rewrite(folder, 11, [12, 20])
    return path, [each for each in messages if each.sequence not in (12, 20)]


def copied(whole: Path, folder: Path) -> Folder:
    """A copy of an archive, to be damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    return Folder(folder)


def check(folder: Folder, messages: list[Record], damaged: int) -> None:
    """The damaged file is named, nothing else comes out of it, and everything comes out of the others."""
    name = folder.file(damaged).name
    assert {each.file for each in verify(folder)} == {name}
    findings: list[Finding] = []
    walked = list(Reader(folder).iterate(on_damage=findings.append))
    assert {each.file for each in findings} == {name}
    reader = Reader(folder)
    for message in messages:
        within = damaged <= message.sequence < damaged + 10
        assert within or message in walked
        if message in walked:
            assert reader.read(message.sequence) == message
        else:
            with pytest.raises(Damaged, match=name):
                reader.read(message.sequence)
    assert [each for each in walked if each not in messages] == []


@given(first=st.sampled_from(FIRSTS), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_p2_a_changed_byte_is_found_wherever_it_is(
    whole: tuple[Path, list[Record]], first: int, where: float, flip: int
) -> None:
    path, messages = whole
    folder = copied(path, path.parent / "copy")
    stored = bytearray(folder.file(first).read_bytes())
    stored[int(where * len(stored))] ^= flip
    folder.file(first).write_bytes(stored)
    check(folder, messages, first)
    assert list(verify(Folder(path))) == []


@given(first=st.sampled_from(FIRSTS), keep=st.floats(0, 1, exclude_max=True))
def test_p2_a_file_that_is_cut_off_is_found(whole: tuple[Path, list[Record]], first: int, keep: float) -> None:
    path, messages = whole
    folder = copied(path, path.parent / "copy")
    stored = folder.file(first).read_bytes()
    folder.file(first).write_bytes(stored[: int(keep * len(stored))])
    check(folder, messages, first)
    assert list(verify(Folder(path))) == []


@given(first=st.sampled_from(FIRSTS), where=st.floats(0, 1), more=st.binary(min_size=1, max_size=40))
def test_p2_bytes_that_were_put_in_are_found(
    whole: tuple[Path, list[Record]], first: int, where: float, more: bytes
) -> None:
    path, messages = whole
    folder = copied(path, path.parent / "copy")
    stored = folder.file(first).read_bytes()
    place = int(where * len(stored))
    folder.file(first).write_bytes(stored[:place] + more + stored[place:])
    check(folder, messages, first)
    assert list(verify(Folder(path))) == []


def test_p2_bytes_between_the_frames_and_the_footer_are_found(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    stored = folder.file(21).read_bytes()
    place = stored.index(b'{"last":')
    folder.file(21).write_bytes(stored[:place] + b"more" + stored[place:])
    check(folder, whole[1], 21)
    assert ["more bytes than frames" in str(each) for each in verify(folder)] == [True]


def test_p2_a_changed_byte_is_named_with_its_place(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    stored = bytearray(folder.file(21).read_bytes())
    stored[stored.index(b"\x28\xb5\x2f\xfd") + 20] ^= 1  # the first zstd frame
    folder.file(21).write_bytes(stored)
    [finding] = verify(folder)
    assert finding.kind is Kind.WRONG_DIGEST
    assert str(finding).startswith("00000000000000000021.segment, bytes 1")
    assert "(sequences from 21 on): wrong digest" in str(finding)


def test_what_can_not_be_read_is_named(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    folder.file(11).unlink()
    folder.file(11).mkdir()
    assert [(each.kind, each.file) for each in verify(folder)] == [(Kind.UNREADABLE, folder.file(11).name)]


@pytest.mark.parametrize("first", FIRSTS)
def test_p2_a_missing_segment_is_found(whole: tuple[Path, list[Record]], tmp_path: Path, first: int) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    folder.file(first).unlink()
    assert [each.kind for each in verify(folder, at_least=30)] == [Kind.MISSING_SEGMENT]


def test_the_end_of_an_archive_is_only_missed_by_who_knows_it(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    folder.file(21).unlink()
    assert list(verify(folder)) == []
    assert [str(each) for each in verify(folder, at_least=30)] == [
        "copy, its end: missing segment: the archive ends with sequence 20, but 30 was sealed"
    ]


def test_p2_a_segment_under_another_name_is_found(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder = copied(whole[0], tmp_path / "copy")
    folder.file(21).rename(folder.file(31))
    kinds = {each.kind for each in verify(folder, at_least=30)}
    assert kinds == {Kind.MISSING_SEGMENT, Kind.MALFORMED}
    with pytest.raises(Damaged, match="the segment begins with sequence 21"):
        Reader(folder).read(31)


def test_p2_a_segment_of_another_archive_is_found(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    fill(tmp_path / "other")
    folder = copied(whole[0], tmp_path / "copy")
    shutil.copy(Folder(tmp_path / "other").file(11), folder.file(11))
    assert {(each.kind, each.file) for each in verify(folder)} == {
        (Kind.WRONG_CHAIN, folder.file(11).name),
        (Kind.WRONG_CHAIN, folder.file(21).name),
    }
    with pytest.raises(Damaged, match=r"it was not sealed as the segment after 0+1\.segment"):
        Reader(folder).read(11)


def test_p2_a_segment_of_another_stream_is_found(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    fill(tmp_path / "other", stream=Stream("FLOW", FLOW.created_ns + 1))
    folder = copied(whole[0], tmp_path / "copy")
    shutil.copy(Folder(tmp_path / "other").file(21), folder.file(21))
    assert Kind.OTHER_STREAM in {each.kind for each in verify(folder)}
    with pytest.raises(Damaged, match="other stream"):
        Reader(folder).read(21)


def test_p2_two_segments_with_the_same_sequences_are_found(whole: tuple[Path, list[Record]], tmp_path: Path) -> None:
    with writing(tmp_path / "other") as writer:
        give(writer, range(1, 6))
        writer.seal()
        give(writer, range(6, 11))
        writer.seal()
    folder = copied(whole[0], tmp_path / "copy")
    shutil.copy(Folder(tmp_path / "other").file(6), folder.file(6))
    assert Kind.OVERLAP in {each.kind for each in verify(folder)}
    with pytest.raises(Damaged):
        list(Reader(folder).iterate())
