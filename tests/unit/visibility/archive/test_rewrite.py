"""Erasing messages: what goes, what stays, and how the archive proves that nothing else has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.visibility.archive.errors import Damaged, Kind, NoRecord
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import SALT_BYTES, Builder, inflate
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.segment import Footer, FrameEntry, Rewrite, Segment, digest, trailer
from handrail.visibility.archive.segment_file import opened, read_deflated, read_segment
from handrail.visibility.archive.verify import verify
from tests.support.archives import ABSENT, fill, give, held, record, writing


def segment_of(folder: Folder, first: int) -> tuple[Segment, list[bytes]]:
    """A segment, and its frames as they are stored."""
    with opened(folder.file(first)) as file:
        segment = read_segment(file, folder.file(first).name)
        return segment, [read_deflated(file, segment, index) for index in range(len(segment.footer.frames))]


def store(folder: Folder, segment: Segment, footer: Footer, frames: list[bytes]) -> None:
    """Writes a segment with another footer. Its own digest is right."""
    header, end = segment.header.encode(), footer.encode()
    folder.file(segment.first).write_bytes(b"".join((header, *frames, end, trailer(header, end))))


def test_what_is_erased_is_gone_and_everything_else_stays(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive")
    with LockedFolder(tmp_path / "archive") as folder:
        before, frames = segment_of(folder, 11)
        done = rewrite(folder, 11, [12, 13, 20])
        after, _ = segment_of(folder, 11)
    assert done is not None
    assert (done.erased, done.replaced) == ((12, 13, 20), before.digest)
    assert (done.sealed.first, done.sealed.last, done.sealed.count) == (11, 20, 6)
    assert done.sealed.digest == after.digest != before.digest
    assert after.link == before.digest, "the next segment is still its successor"
    assert after.erased == ((12, 13), (20, 20))
    assert held(tmp_path / "archive") == [each for each in messages if each.sequence not in (12, 13, 20)]
    assert list(verify(Folder(tmp_path / "archive"))) == []
    stored = Folder(tmp_path / "archive").file(11).read_bytes()
    assert frames[0] not in stored
    assert frames[1] in stored, "a frame without an erased message is the same, byte by byte"


@given(rounds=st.lists(st.sets(st.integers(11, 20)), max_size=4))
def test_an_archive_stays_whole_however_often_it_is_rewritten(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[set[int]]
) -> None:
    path = tmp_path_factory.mktemp("archive")
    messages = fill(path)
    versions: list[str] = []
    gone: set[int] = set()
    with LockedFolder(path) as folder:
        for drop in rounds:
            done = rewrite(folder, 11, drop)
            assert (done is None) == (drop <= gone | set(ABSENT))
            gone |= drop
            versions += [done.replaced] if done is not None else []
        segment, _ = segment_of(folder, 11)
    assert segment.footer.rewrite is None or segment.footer.rewrite.replaces == tuple(versions)
    assert held(path) == [each for each in messages if each.sequence not in gone]
    assert list(verify(Folder(path), at_least=30)) == []


def test_a_segment_that_another_release_encoded_can_be_rewritten(tmp_path: Path) -> None:
    """Digests hold for the bytes of a footer, not for its fields: a field may be added, or blanks."""
    fill(tmp_path / "archive", segments=1)
    with LockedFolder(tmp_path / "archive") as folder:
        segment, frames = segment_of(folder, 1)
        header, footer = segment.encoded[0], b'{"more": 1, ' + segment.encoded[1][1:]
        folder.file(1).write_bytes(b"".join((header, *frames, footer, trailer(header, footer))))
        assert rewrite(folder, 1, [2]) is not None
        assert rewrite(folder, 1, [3]) is not None
        assert segment_of(folder, 1)[0].link == digest(header, footer)
    assert list(verify(Folder(tmp_path / "archive"))) == []


def test_the_archive_goes_on_behind_a_rewritten_segment(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    fill(path)
    with LockedFolder(path) as folder:
        rewrite(folder, 21, [25])
    with writing(path) as writer:
        give(writer, range(31, 41))
        rewrite(writer._folder, 21, [26])
        writer.seal()
        rewrite(writer._folder, 21, [27])
        rewrite(writer._folder, 31, range(31, 41))
        give(writer, range(41, 51))
        writer.seal()
    assert list(verify(Folder(path), at_least=50)) == []
    rest = [each.sequence for each in Reader(Folder(path)).iterate(after=20)]
    assert rest == [21, 22, 23, 24, 28, 29, 30, *range(41, 51)]


def test_a_sequence_of_another_segment_is_refused(tmp_path: Path) -> None:
    messages = fill(tmp_path / "archive")
    with LockedFolder(tmp_path / "archive") as folder, pytest.raises(NoRecord, match="sequence 21"):
        rewrite(folder, 11, [12, 21])
    assert held(tmp_path / "archive") == messages


def test_a_damaged_segment_is_not_rewritten(tmp_path: Path) -> None:
    fill(tmp_path / "archive")
    with LockedFolder(tmp_path / "archive") as folder:
        stored = bytearray(folder.file(11).read_bytes())
        stored[300] ^= 1
        folder.file(11).write_bytes(stored)
        with pytest.raises(Damaged, match=folder.file(11).name):
            rewrite(folder, 11, [12])
        assert folder.file(11).read_bytes() == stored


def test_p2_the_old_digest_does_not_tell_what_was_erased(tmp_path: Path) -> None:
    """Whoever knows all other messages of a frame, and guesses the erased one, can't check the guess."""
    messages = fill(tmp_path / "archive")
    with LockedFolder(tmp_path / "archive") as folder:
        before, frames = segment_of(folder, 11)
        rewrite(folder, 11, [12])
    salts = {inflate(frame)._inflated[:SALT_BYTES] for frame in frames}
    assert len(salts) == len(frames), "each frame has a salt of its own"
    guess = Builder()
    for each in messages:
        if 11 <= each.sequence < 11 + before.footer.frames[0].count:
            guess.add(each)
    salt = inflate(frames[0])._inflated[:SALT_BYTES]
    old = before.footer.frames[0].digest
    assert sha256(guess.deflate(salt)).hexdigest() == old
    assert sha256(guess.deflate(bytes(SALT_BYTES))).hexdigest() != old
    assert not any(salt in inflate(frame)._inflated for frame in segment_of(Folder(folder.path), 11)[1])


def forged(frames: list[bytes], segment: Segment, body: bytes) -> Footer:
    """Replaces a message of the first frame, and returns the footer with the frame's new digest."""
    builder = Builder()
    for each in inflate(frames[0]).records():
        builder.add(each._replace(body=body) if each.sequence == 11 else each)
    frames[0] = builder.deflate(bytes(SALT_BYTES))
    old, *others = segment.footer.frames
    new = FrameEntry(old.first, old.count, len(frames[0]), sha256(frames[0]).hexdigest())
    return replace(segment.footer, frames=(new, *others))


def test_p2_a_rewrite_without_a_record_breaks_the_chain(tmp_path: Path) -> None:
    fill(tmp_path / "archive")
    folder = Folder(tmp_path / "archive")
    segment, frames = segment_of(folder, 11)
    store(folder, segment, forged(frames, segment, b"other"), frames)
    assert [(each.kind, each.file) for each in verify(folder)] == [(Kind.WRONG_CHAIN, folder.file(21).name)]
    with pytest.raises(Damaged):
        list(Reader(folder).iterate())


Forge = Callable[[Footer, Rewrite], Footer]


@pytest.mark.parametrize(
    "forge, says",
    [
        (lambda footer, sealed: replace(footer, rewrite=sealed), "has changed by more than was erased"),
        (
            lambda footer, sealed: replace(footer, rewrite=replace(sealed, replaces=("00",))),
            "its first version is not the one that it names",
        ),
        (
            lambda footer, sealed: replace(footer, rewrite=replace(sealed, erased=((11, 11),))),
            "of 10 sequences 9 are there, and 2 are listed",
        ),
        (
            lambda footer, sealed: replace(
                footer, absent=(), rewrite=replace(sealed, erased=((15, 15),)), frames=footer.frames
            ),
            "what was absent has changed",
        ),
        (
            lambda footer, sealed: replace(footer, rewrite=replace(sealed, original="{}")),
            "a field is missing or wrong",
        ),
    ],
    ids=["nothing erased", "other version", "not erased", "absent becomes erased", "no original"],
)
def test_p2_a_rewrite_may_only_erase(tmp_path: Path, forge: Forge, says: str) -> None:
    fill(tmp_path / "archive")
    folder = Folder(tmp_path / "archive")
    segment, frames = segment_of(folder, 11)
    sealed = Rewrite((segment.digest,), segment.footer.encode().decode(), ())
    store(folder, segment, forge(forged(frames, segment, b"other"), sealed), frames)
    findings = [each for each in verify(folder) if each.file == folder.file(11).name]
    assert any(says in str(each) for each in findings), findings
    for sequence in (11, 19):
        with pytest.raises(Damaged, match=folder.file(11).name):
            Reader(folder).read(sequence)
    assert Reader(folder).read(1) == record(1)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"absent": ()}, "of 10 sequences 9 are there, and 0 are listed"),
        ({"absent": ((14, 15),)}, "of 10 sequences 9 are there, and 2 are listed"),
        ({"absent": ((14, 14),)}, "sequence 14 is there although it is listed as absent or erased"),
        ({"absent": ((21, 21),)}, "contradict each other, or the range"),
        ({"last": 21, "absent": ((15, 15), (21, 21))}, "the segment before it ends with sequence 21"),
        ({"count": 8}, "of 10 sequences 9 are there, and 1 are listed"),
    ],
)
def test_p2_a_footer_that_leaves_a_sequence_out_is_found(tmp_path: Path, change: dict[str, object], says: str) -> None:
    fill(tmp_path / "archive")
    folder = Folder(tmp_path / "archive")
    segment, frames = segment_of(folder, 11)
    store(folder, segment, replace(segment.footer, **change), frames)  # type: ignore[arg-type]
    findings = [str(each) for each in verify(folder) if each.kind in (Kind.UNACCOUNTED, Kind.OVERLAP)]
    assert any(says in each for each in findings), findings
