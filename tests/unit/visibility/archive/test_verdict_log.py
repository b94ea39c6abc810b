"""Verdicts are stored or not there, whatever happens; a changed byte is found."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handrail.visibility.archive import purge_mark, verdict_log
from handrail.visibility.archive.errors import CannotWrite, Damaged
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.purge_mark import PurgeMark
from handrail.visibility.archive.verdict import Verdict, decode, encode
from handrail.visibility.archive.verdict_log import VerdictLog, numbered, verdict_of, verify_verdicts
from tests.support.archives import Killed, full

ENDED = datetime(2026, 11, 28, 9, 30, 0, 123, UTC)


def verdict(first: int) -> Verdict:
    summary = {"flow_type": "refund", "flow_id": f"{first:032x}", "first_sequence": first, "ended": ENDED}
    summary |= {"requester": "olga", "reason": "the card is closed", "deadline": None, "key": "CB-1"}
    return Verdict((first, first + 2, first + 7), summary, {first + 2: "it came too late"}, "1.0")


def verdicts(*firsts: int) -> list[Verdict]:
    return [verdict(each) for each in firsts]


def held(path: Path, *, after: int = 0) -> list[tuple[int, Verdict]]:
    return list(numbered(Folder(path), after=after))


def test_verdicts_are_given_back_in_order_and_by_number(tmp_path: Path) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        log = VerdictLog(folder, file_bytes=1)  # each block has a file of its own
        assert [log.append(verdicts(1, 2)), log.append(verdicts(3)), log.append(verdicts(4, 5))] == [1, 3, 4]
        assert VerdictLog(folder).count == log.count == 5
        assert VerdictLog(folder).append(verdicts(6)) == 6
    assert held(folder.path) == [(each, verdict(each)) for each in range(1, 7)]
    for after in range(7):
        assert [number for number, _ in held(folder.path, after=after)] == [*range(after + 1, 7)]
    assert [verdict_of(folder, number) for number in range(1, 7)] == verdicts(*range(1, 7))
    assert list(verify_verdicts(folder)) == []


def test_an_archive_without_verdicts_has_none(tmp_path: Path) -> None:
    assert held(tmp_path) == []
    with pytest.raises(Damaged):
        verdict_of(Folder(tmp_path), 1)


class Interrupted:
    """Stands in for the module `os`: it fails from one step on, `times` times."""

    def __init__(self, step: int, error: BaseException, *, times: int = 1000) -> None:
        self._left = step
        self._times = times
        self._error = error

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        return self._counted(found) if name in ("ftruncate", "pwrite", "fsync", "rename", "open") else found

    def _counted(self, call: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self._left -= 1
            if -self._times <= self._left < 0:
                raise self._error
            return call(*arguments)

        return counted


@pytest.mark.parametrize("error", [Killed(), full()], ids=["killed", "full"])
@pytest.mark.parametrize("step", range(12))
def test_p2_after_a_crash_a_block_is_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        log = VerdictLog(folder)
        log.append(verdicts(1))
        done = False
        with monkeypatch.context() as broken:
            broken.setattr(verdict_log, "os", Interrupted(step, error))
            try:
                log.append(verdicts(2, 3))
                done = True
            except (Killed, CannotWrite):
                pass
        again = VerdictLog(folder)
        assert again.count in ((3,) if done else (1, 3))
        number = again.append(verdicts(4))
        assert [each for each, _ in held(folder.path)] == [*range(1, number + 1)]
        assert verdict_of(folder, number) == verdict(4)


@pytest.mark.parametrize("step", range(20))
def test_after_an_error_nothing_of_the_block_counts_or_the_log_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        log = VerdictLog(folder)
        log.append(verdicts(1))
        with monkeypatch.context() as broken:
            once = step % 2 == 0
            broken.setattr(verdict_log, "os", Interrupted(step // 2, full(), times=1 if once else 1000))
            with suppress(CannotWrite):
                log.append(verdicts(2, 3))
        if once:
            assert len(held(folder.path)) == log.count
        try:
            log.append(verdicts(4))
        except CannotWrite:
            assert not once


@pytest.mark.parametrize("step", range(6))
def test_a_verdict_is_replaced_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        log = VerdictLog(folder)
        log.append(verdicts(1, 2))
        log.append(verdicts(3))
        with monkeypatch.context() as broken:
            broken.setattr(verdict_log, "os", Interrupted(step, Killed()))
            with suppress(Killed):
                log.replace(2, verdict(2).as_erased())
        log = VerdictLog(folder)
        assert verdict_of(folder, 2) in (verdict(2), verdict(2).as_erased())
        log.replace(2, verdict(2).as_erased())
        log.append(verdicts(4))
    assert held(folder.path) == [(1, verdict(1)), (2, verdict(2).as_erased()), (3, verdict(3)), (4, verdict(4))]


def test_a_withdrawn_verdict_is_passed_over_and_keeps_its_number(tmp_path: Path) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        log = VerdictLog(folder)
        log.append(verdicts(1, 2))
        log.replace(1, verdict(1).as_withdrawn())
        log.append([verdict(1)])
        assert [number for number, _ in numbered(folder, withdrawn=True)] == [1, 2, 3]
        assert verdict_of(folder, 1).withdrawn
    assert held(folder.path) == [(2, verdict(2)), (3, verdict(1))]


@pytest.mark.parametrize("step", range(4))
def test_a_mark_of_purges_moves_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        mark = PurgeMark(folder)
        assert mark.number == 0
        mark.move(7)
        with monkeypatch.context() as broken, suppress(Killed):
            broken.setattr(purge_mark, "os", Interrupted(step, Killed()))
            mark.move(8)
        assert PurgeMark(folder).number in (7, 8)
        (folder.path / "purged").write_text("many")
        with pytest.raises(Damaged, match="Remove it"):
            PurgeMark(folder)


def test_a_verdict_of_a_release_that_knew_no_key_has_an_empty_one() -> None:
    line = encode(verdicts(1)).replace(b',"key":"CB-1"', b"")
    assert b"CB-1" not in line
    [read] = decode(line, file="a.verdicts", where="block 1")
    assert read.summary == {**verdict(1).summary, "key": ""}


def test_an_erased_verdict_has_no_words_of_strangers() -> None:
    erased = verdict(1).as_erased()
    assert erased.erased
    assert [erased.summary[name] for name in ("requester", "reason", "key")] == ["", "", ""]
    assert erased.void == {3: ""}
    assert (erased.flow_id, erased.sequences) == (verdict(1).flow_id, verdict(1).sequences)


def test_p2_a_changed_byte_of_a_verdict_is_found(tmp_path: Path) -> None:
    with LockedFolder(tmp_path / "archive") as folder:
        VerdictLog(folder).append(verdicts(1, 2))
    [path] = folder.path.glob("*.verdicts")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = list(verify_verdicts(folder))
        assert found or held(folder.path) == [], f"byte {at}"
