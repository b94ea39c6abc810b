"""The check for .pth files and native binaries."""

import sys
from pathlib import Path

import pytest

from demos.compliance.checks.binaries import ELF, MACH_O, NATIVE_HERE, PE, check, native_format
from demos.compliance.installed import Installed
from tests.support.distributions import PLATFORM, at, install

BINARIES = {
    ELF: b"\x7fELF\x02\x01\x01" + bytes(57),
    MACH_O: bytes.fromhex("cffaedfe") + bytes(60),
    PE: b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0",
}
FAT = bytes.fromhex("cafebabe00000002") + bytes(56)
JAVA = bytes.fromhex("cafebabe00000034") + bytes(56)
HERE = NATIVE_HERE[sys.platform]
ELSEWHERE = next(each for each in BINARIES if each != HERE)


def found(installed: Installed) -> list[tuple[str, str]]:
    return [(each.code, each.subject) for each in check(installed).all]


@pytest.mark.parametrize(
    "content, format_",
    [
        *((content, format_) for format_, content in BINARIES.items()),
        (FAT, MACH_O),
        (JAVA, ""),
        (b"MZ is no binary yet", ""),
        (b"MZ" + b"\xff" * 70, ""),
        (b"", ""),
        (b"#!/bin/sh\n", ""),
    ],
)
def test_a_binary_is_told_by_its_content(content: bytes, format_: str, tmp_path: Path) -> None:
    (tmp_path / "innocent.txt").write_bytes(content)
    assert native_format(tmp_path / "innocent.txt") == format_


def test_a_binary_is_what_a_wheel_for_a_platform_is_for(tmp_path: Path) -> None:
    files = {"fast/a.so": BINARIES[HERE], "fast/b.txt": BINARIES[HERE]}
    (note,) = check(install(tmp_path, "fast", files=files, wheel=PLATFORM)).all
    assert (note.code, note.subject) == ("BINARY", "fast/a.so")
    assert "2 native binaries" in note.text
    assert check(at(tmp_path, "fast-1.0.dist-info")).passed


def test_a_binary_in_a_pure_wheel_and_one_of_another_platform_fail(tmp_path: Path) -> None:
    assert found(install(tmp_path, "sly", files={"sly/data.bin": BINARIES[HERE]})) == [
        ("BINARY_IN_PURE_WHEEL", "sly/data.bin")
    ]
    foreign = install(tmp_path, "foreign", files={"foreign/t.exe": BINARIES[ELSEWHERE]}, wheel=PLATFORM)
    assert found(foreign) == [("BINARY_OF_ANOTHER_PLATFORM", "foreign/t.exe")]


def test_a_pth_that_runs_code_fails_and_one_that_adds_a_path_is_noted(tmp_path: Path) -> None:
    runs = install(tmp_path, "runs", files={"runs.pth": b"# comment\nimport os; os.getpid()\n"})
    assert found(runs) == [("PTH_RUNS_CODE", "runs.pth")]
    adds = install(tmp_path, "adds", files={"adds.pth": b"/somewhere/else\n\nimportant\n"})
    assert found(adds) == [("PTH_ADDS_PATHS", "adds.pth")]
    assert check(adds).passed
    # Python reads only those that lie in site-packages itself.
    assert found(install(tmp_path, "deep", files={"deep/x.pth": b"import os\n"})) == []
    assert found(install(tmp_path, "latin", files={"latin.pth": b"\xff"})) == [("PTH_UNREADABLE", "latin.pth")]


def test_without_a_record_it_says_that_it_could_not_look(tmp_path: Path) -> None:
    installed = install(tmp_path, "blind")
    (installed.folder / "RECORD").write_bytes(b"\xff")
    assert found(installed) == [("NOT_LOOKED_AT", "RECORD")]
    (tmp_path / "empty-1.dist-info").mkdir()
    assert found(at(tmp_path, "empty-1.dist-info")) == []
