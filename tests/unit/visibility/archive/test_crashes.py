"""P2: whatever interrupts the archive, and wherever, the mark counts only what is whole, and nothing sealed is lost."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from handrail.visibility.archive import folder as folder_module
from handrail.visibility.archive.errors import CannotWrite, Damaged, Kind
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.rewrite import rewrite
from handrail.visibility.archive.verify import verify
from handrail.visibility.archive.writer import Writer
from tests.support.archives import ABSENT, Disk, Killed, at, fill, full, give, held, record, writing

Install = Callable[[Disk], None]

ERASED = (3, 4, 12)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a disk under the archive's folder."""
    return lambda disk: monkeypatch.setattr(folder_module, "os", disk)


def seal_two_and_erase(path: Path, disk: Disk) -> tuple[int, list[int]]:
    """Seals two segments and rewrites both, until it is killed. Returns the mark and what was erased, as reported."""
    mark = 0
    erased: list[int] = []
    try:
        with writing(path) as writer:
            for begin in (1, 11):
                give(writer, range(begin, begin + 10))
                writer.seal()
                mark = writer.mark
            for first in (1, 11):
                if rewrite(writer._folder, first, [each for each in ERASED if first <= each < first + 10]):
                    erased += [each for each in ERASED if first <= each < first + 10]
    except Killed:
        pass
    return mark, erased


def steps(path: Path, install: Install) -> int:
    """How many steps there are without an interruption."""
    disk = Disk(path, lambda number, name: None)
    install(disk)
    seal_two_and_erase(path, disk)
    install(os)  # type: ignore[arg-type]
    return disk.steps


@pytest.mark.parametrize("power_fails", [False, True])
def test_p2_after_a_kill_at_any_step_the_mark_counts_what_is_whole(
    tmp_path: Path, install: Install, *, power_fails: bool
) -> None:
    number = steps(tmp_path / "whole", install)
    assert number > 40
    for step in range(number):
        path = tmp_path / f"{step}"
        disk = Disk(path, at(step, Killed()))
        install(disk)
        reported, erased = seal_two_and_erase(path, disk)
        install(os)  # type: ignore[arg-type]
        if power_fails and path.exists():
            disk.lose_power()
        path.mkdir(exist_ok=True)
        with writing(path) as writer:
            mark = writer.mark
            assert mark >= reported, "what was reported as sealed is there"
            assert mark in (0, 10, 20)
            assert [each.name for each in path.glob("*.part")] == []
            found = held(path)
            gone = {*ABSENT, *(each for each in ERASED if record(each) not in found)}
            assert found == [record(each) for each in range(1, mark + 1) if each not in gone]
            assert not any(record(each) in found for each in erased), "what was reported as erased is gone"
            give(writer, range(writer.next, 31))
            writer.seal()
        assert list(verify(Folder(path), at_least=30)) == []


def test_p2_what_counts_after_a_kill_is_on_the_disk(tmp_path: Path, install: Install) -> None:
    """A kill may come between the name of a segment and its sync, and a power failure after the next start."""
    marks = []
    for step in range(steps(tmp_path / "whole", install)):
        path = tmp_path / f"{step}"
        disk = Disk(path, at(step, Killed()))
        install(disk)
        seal_two_and_erase(path, disk)
        disk.interrupt = at(-1, full())
        with writing(path) as writer:
            marks.append(writer.mark)
        install(os)  # type: ignore[arg-type]
        disk.lose_power()
        with writing(path) as writer:
            assert writer.mark == marks[-1]
    assert marks == sorted(marks)
    assert set(marks) == {0, 10, 20}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_p2_an_error_at_any_step_moves_no_mark_and_the_next_attempt_seals(
    tmp_path: Path, install: Install, code: int
) -> None:
    refusal = ""
    for step in range(100):
        path = tmp_path / f"{step}"
        with writing(path) as writer:
            give(writer, range(1, 11))
            disk = Disk(path, at(step, OSError(code, os.strerror(code))))
            install(disk)
            refusal = refused_seal(writer)
            install(os)  # type: ignore[arg-type]
            if disk.steps <= step:
                break
            assert writer.mark == 0
            assert f"the archive in {path}: {os.strerror(code)}" in refusal
            assert list(path.glob("*.part")) == []
            give(writer, range(11, 16))
            writer.seal()
            assert writer.mark == 15
        assert held(path) == [record(each) for each in range(1, 16) if each not in ABSENT]
    assert step > 10
    assert refusal == ""


def refused_seal(writer: Writer) -> str:
    """Why a writer can't seal; empty if it can."""
    try:
        writer.seal()
    except CannotWrite as error:
        return error.text
    return ""


def test_p2_a_disk_that_is_full_at_any_byte_loses_nothing(tmp_path: Path) -> None:
    """The kernel itself refuses: a file may not grow beyond a limit."""
    body = bytes(range(256)) * 8
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "archive"
    with writing(path) as writer:
        for sequence in range(1, 4):
            writer.append(record(sequence, body * sequence))
        refusals = []
        for limit in (0, 1, 15, 100, 400, 900, 1300):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                refusals.append(refused_seal(writer))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert writer.mark == 0
            assert [each.name for each in path.iterdir()] == ["lock"]
        assert writer.seal() is not None
        size = (path / "00000000000000000001.segment").stat().st_size
        assert all(f"00000000000000000001.segment ({size} bytes)" in each for each in refusals), refusals
    assert held(path) == [record(sequence, body * sequence) for sequence in range(1, 4)]


def test_p2_what_the_disk_gives_back_differently_does_not_count(tmp_path: Path, install: Install) -> None:
    class Forgetful(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            self._step("write")
            return os.write(descriptor, data if self.steps != 3 else bytes(len(data)))

    path = tmp_path / "archive"
    with writing(path) as writer:
        give(writer, range(1, 11))
        install(Forgetful(path, lambda number, name: None))
        with pytest.raises(Damaged) as refused:
            writer.seal()
        assert refused.value.finding.file == "00000000000000000001.segment"
        assert refused.value.finding.kind is Kind.WRONG_DIGEST
        assert writer.mark == 0
        assert held(path) == []
        install(os)  # type: ignore[arg-type]
        writer.seal()
    assert len(held(path)) == 8


def test_a_message_is_not_taken_while_a_full_segment_can_not_be_sealed(tmp_path: Path, install: Install) -> None:
    path = tmp_path / "archive"
    with writing(path) as small:
        writer = Writer(small._folder, small._stream, segment_bytes=300, frame_bytes=100)
        give(writer, range(1, 4))
        install(Disk(path, lambda number, name: (_ for _ in ()).throw(full())))
        for _ in range(3):
            with pytest.raises(CannotWrite):
                give(writer, [4])
        assert (writer.mark, writer.next) == (0, 4)
        install(os)  # type: ignore[arg-type]
        give(writer, [4])
        assert (writer.mark, writer.next) == (3, 5)


def test_an_unfinished_rewrite_leaves_the_segment_as_it_was(tmp_path: Path, install: Install) -> None:
    messages = fill(tmp_path / "archive")
    with writing(tmp_path / "archive") as writer:
        install(Disk(tmp_path / "archive", at(3, full())))
        with pytest.raises(CannotWrite):
            rewrite(writer._folder, 11, [12])
    assert held(tmp_path / "archive") == messages
    assert list(verify(Folder(tmp_path / "archive"))) == []
