"""What a writer takes, what it refuses, and when it seals."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.visibility.archive.errors import ArchiveInUse, Damaged, Kind, OtherStream, OutOfOrder
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.segment import Stream
from handrail.visibility.archive.verify import verify
from handrail.visibility.archive.writer import Sealed, Writer
from tests.support.archives import FLOW, fill, give, held, record, writing


@pytest.mark.parametrize("sequence", [3, 5, 7, 0, 1])
def test_p2_a_message_that_does_not_come_next_is_refused(tmp_path: Path, sequence: int) -> None:
    with writing(tmp_path / "archive") as writer:
        give(writer, range(1, 4))
        with pytest.raises(OutOfOrder, match=rf"sequence 4 comes next in the archive, but {sequence} was given"):
            writer.append(record(sequence))
        with pytest.raises(OutOfOrder):
            writer.absent(sequence, sequence + 10)
        writer.append(record(4))
        assert writer.seal() is not None
    assert held(tmp_path / "archive") == [record(each) for each in range(1, 5)]


def test_p2_the_mark_moves_when_a_segment_is_sealed(tmp_path: Path) -> None:
    with writing(tmp_path / "archive") as writer:
        assert writer.seal() is None
        give(writer, range(1, 11))
        assert (writer.mark, writer.next) == (0, 11)
        sealed = writer.seal()
        assert sealed is not None
        assert sealed == Sealed(1, 10, 8, sealed.digest)
        assert (writer.mark, writer.next) == (10, 11)
        assert writer.seal() is None


def test_p2_what_was_not_sealed_is_asked_for_again(tmp_path: Path) -> None:
    with writing(tmp_path / "archive") as writer:
        give(writer, range(1, 11))
        writer.seal()
        give(writer, range(11, 20))
    with writing(tmp_path / "archive") as writer:
        assert (writer.mark, writer.next) == (10, 11)


def test_absent_sequences_count_up_to_the_mark(tmp_path: Path) -> None:
    with writing(tmp_path / "archive") as writer:
        writer.absent(1, 1_000_000)
        writer.append(record(1_000_001))
        writer.absent(1_000_002, 1_000_002)
        writer.absent(1_000_003, 1_000_009)
        sealed = writer.seal()
        assert sealed is not None
        assert (sealed.last, sealed.count, writer.mark) == (1_000_009, 1, 1_000_009)
        writer.absent(1_000_010, 1_000_010)
        sealed = writer.seal()
        assert sealed is not None
        assert sealed.count == 0
        with pytest.raises(ValueError, match="no sequence from 1000011 to 1000010"):
            writer.absent(1_000_011, 1_000_010)
    assert list(verify(Folder(tmp_path / "archive"), at_least=1_000_010)) == []
    assert held(tmp_path / "archive") == [record(1_000_001)]


@pytest.mark.parametrize(
    "wrong",
    [record(1)._replace(time_ns=1 << 63), record(1)._replace(subject="a.\ud800")],
    ids=["a time beyond its field", "a subject that is no text"],
)
def test_a_message_that_can_not_be_stored_is_refused_and_spoils_nothing(tmp_path: Path, wrong: Record) -> None:
    with writing(tmp_path / "archive") as writer:
        with pytest.raises(ValueError, match=r"message 1 does not fit|surrogates not allowed"):
            writer.append(wrong)
        writer.append(record(1))
        assert writer.seal() is not None
    assert held(tmp_path / "archive") == [record(1)]


def test_a_segment_is_sealed_by_its_size(tmp_path: Path) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW, segment_bytes=2000, frame_bytes=500)
        give(writer, range(1, 200))
        sizes = [path.stat().st_size for path in sorted((tmp_path / "archive").glob("*.segment"))]
    assert len(sizes) > 4
    assert all(2000 < size < 4500 for size in sizes), "frames of this size, and a footer"


def test_ranges_of_absent_sequences_count_for_the_size(tmp_path: Path) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW, segment_bytes=2000)
        for sequence in range(1, 301, 2):
            writer.absent(sequence, sequence)
            writer.append(record(sequence + 1))
        assert writer.mark > 0


def test_a_segment_is_sealed_by_its_age(tmp_path: Path) -> None:
    now = 1000.0
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW, age=timedelta(minutes=1), clock=lambda: now)
        now += 100
        assert writer.seal_if_due() is None, "nothing waits"
        writer.append(record(1)._replace(time_ns=int(now * 1e9)))
        now += 59
        writer.append(record(2)._replace(time_ns=int(now * 1e9)))
        assert writer.seal_if_due() is None
        now += 1
        sealed = writer.seal_if_due()
        assert sealed is not None
        assert sealed.count == 2
        now += 100
        assert writer.seal_if_due() is None


def test_the_age_of_a_message_is_counted_from_when_the_stream_stored_it(tmp_path: Path) -> None:
    """So what is read again after a restart does not wait again."""
    old = record(2)
    now = old.time_ns / 1e9 + 3600
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW, age=timedelta(hours=1), clock=lambda: now)
        writer.absent(1, 1)
        assert writer.seal_if_due() is None
        writer.append(old)
        sealed = writer.seal_if_due()
        assert sealed is not None
        assert (sealed.first, sealed.last) == (1, 2)


def test_a_message_from_the_future_is_as_old_as_one_that_came_now(tmp_path: Path) -> None:
    young = record(1)
    now = young.time_ns / 1e9 - 3600
    with LockedFolder(tmp_path / "archive") as folder:
        writer = Writer(folder, FLOW, age=timedelta(minutes=1), clock=lambda: now)
        writer.append(young)
        assert writer.seal_if_due() is None
        now += 60
        assert writer.seal_if_due() is not None


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        LockedFolder(tmp_path / "archive"),
        pytest.raises(ArchiveInUse, match=rf"the archive in {tmp_path}/archive is in use by another process"),
    ):
        LockedFolder(tmp_path / "archive")
    with LockedFolder(tmp_path / "archive") as folder:
        assert folder.firsts() == []


def test_only_this_user_may_read_an_archive(tmp_path: Path) -> None:
    fill(tmp_path / "archive")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "archive").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "archive").stat().st_mode) == 0o700


def test_a_disk_that_is_not_mounted_is_no_new_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LockedFolder(tmp_path / "missing" / "archive")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [Stream("FLOW", FLOW.created_ns + 1), Stream("AUDIT", FLOW.created_ns)])
def test_p2_a_stream_that_was_created_again_gets_an_archive_of_its_own(tmp_path: Path, other: Stream) -> None:
    messages = fill(tmp_path / "archive")
    with (
        pytest.raises(OtherStream, match="give each stream a folder of its own"),
        writing(tmp_path / "archive", stream=other),
    ):
        pass
    assert held(tmp_path / "archive") == messages


@pytest.mark.parametrize("segment", [1, 11, 21])
def test_p2_no_mark_counts_beyond_a_segment_that_is_missing(tmp_path: Path, segment: int) -> None:
    fill(tmp_path / "archive")
    Folder(tmp_path / "archive").file(segment).unlink()
    with pytest.raises(Damaged) as refused, writing(tmp_path / "archive", at_least=30):
        pass
    assert refused.value.finding.kind is Kind.MISSING_SEGMENT


def test_p2_the_last_segment_is_read_again_before_the_mark_counts_it(tmp_path: Path) -> None:
    fill(tmp_path / "archive")
    path = Folder(tmp_path / "archive").file(21)
    stored = bytearray(path.read_bytes())
    stored[300] ^= 1
    path.write_bytes(stored)
    with pytest.raises(Damaged, match=path.name), writing(tmp_path / "archive"):
        pass
