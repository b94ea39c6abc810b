"""The check of files against the RECORD."""

import base64
import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from compliance.v1.compliance_pb2 import Severity
from demos.compliance.checks.integrity import inspect
from demos.compliance.findings import LIMIT
from demos.compliance.installed import Installed
from tests.support.distributions import at, install, line


def found(installed: Installed) -> list[tuple[str, str]]:
    return [(each.code, each.subject) for each in inspect(installed).findings.all]


def test_what_is_as_it_was_installed_has_no_finding(tmp_path: Path) -> None:
    installed = install(tmp_path, "whole")
    (tmp_path / "whole" / "__pycache__").mkdir()
    (tmp_path / "whole" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"cache")
    inspection = inspect(installed)
    assert inspection.findings.all == []
    assert inspection.changed == []


@pytest.mark.parametrize("content", [b"answer = 43\n", b"answer = 42\n#"])
def test_a_changed_file_is_tampering_whether_its_size_tells_or_not(content: bytes, tmp_path: Path) -> None:
    installed = install(tmp_path, "changed")
    before = inspect(installed).fingerprint
    (tmp_path / "changed/__init__.py").write_bytes(content)
    inspection = inspect(installed)
    assert [each.subject for each in inspection.changed] == ["changed/__init__.py"]
    assert inspection.fingerprint != before


def test_a_file_that_another_distribution_wrote_over_is_a_failure_and_no_tampering(tmp_path: Path) -> None:
    first = install(tmp_path, "first", files={"shared.py": b"1"})
    install(tmp_path, "second", files={"shared.py": b"2"})
    inspection = inspect(first)
    assert [(each.code, each.subject) for each in inspection.findings.all] == [("FILE_OVERWRITTEN", "shared.py")]
    assert "second" in inspection.findings.all[0].text
    assert inspection.changed == []


def test_a_changed_file_with_a_record_that_was_rewritten_to_fit_has_another_fingerprint(tmp_path: Path) -> None:
    before = inspect(install(tmp_path, "hidden")).fingerprint
    inspection = inspect(install(tmp_path, "hidden", files={"hidden/__init__.py": b"import os\n"}))
    assert inspection.findings.all == []
    assert inspection.fingerprint != before


def test_missing_and_unrecorded_files_are_found_also_in_a_folder_of_their_own(tmp_path: Path) -> None:
    installed = install(tmp_path, "half", files={"half/a.py": b"", "half/b.py": b""})
    before = inspect(installed).fingerprint
    (tmp_path / "half/b.py").unlink()
    (tmp_path / "half/inner/deep").mkdir(parents=True)
    (tmp_path / "half/inner/deep/c.py").write_bytes(b"")
    (tmp_path / "half/d.py").write_bytes(b"")
    assert found(installed) == [
        ("FILE_MISSING", "half/b.py"),
        ("FILE_UNRECORDED", "half/d.py"),
        ("FILE_UNRECORDED", "half/inner/deep/c.py"),
    ]
    assert inspect(installed).fingerprint != before


def test_in_a_shared_folder_the_files_of_others_are_no_strangers(tmp_path: Path) -> None:
    one = install(tmp_path, "one", files={"google/api/a.py": b"a"})
    install(tmp_path, "two", files={"google/api/b.py": b"b"})
    assert found(one) == []


@pytest.mark.parametrize("path", ["../outside.py", "/etc/passwd", "sub/../../outside.py"])
def test_a_path_that_escapes_is_refused_and_not_read(path: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    content = b"secret"
    (tmp_path / "outside.py").write_bytes(content)
    installed = install(site, "escapes", record=line(path, content) + "\n")
    assert ("PATH_ESCAPES", path) in found(installed)
    assert ("FILE_CHANGED", path) not in found(installed)


def test_a_link_that_escapes_is_refused_too(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed = install(site, "linked")
    (site / "linked/__init__.py").unlink()
    (site / "linked/__init__.py").symlink_to("/etc/hostname")
    assert found(installed) == [("PATH_ESCAPES", "linked/__init__.py")]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    installed = install(tmp_path, "pipe")
    (tmp_path / "pipe/__init__.py").unlink()
    os.mkfifo(tmp_path / "pipe/__init__.py")
    assert found(installed) == [("NOT_A_FILE", "pipe/__init__.py")]


def test_hashes_must_be_there_and_strong(tmp_path: Path) -> None:
    folder = "weak-1.0.dist-info"
    md5 = "md5=" + "A" * 22
    record = f"weak/__init__.py,{md5},12\n{folder}/METADATA,,\n{folder}/WHEEL,sha512=ab,1\n{folder}/RECORD,,\n"
    installed = install(tmp_path, "weak", record=record)
    assert found(installed) == [
        ("WEAK_HASH", "weak/__init__.py"),
        ("NO_HASH", f"{folder}/METADATA"),
        ("FILE_CHANGED", f"{folder}/WHEEL"),
    ]


def test_sha512_counts(tmp_path: Path) -> None:
    installed = install(tmp_path, "strong")
    record = tmp_path / "strong-1.0.dist-info/RECORD"
    digest = base64.urlsafe_b64encode(hashlib.sha512(b"answer = 42\n").digest()).rstrip(b"=").decode()
    lines = record.read_text().splitlines()
    record.write_text("\n".join([f"strong/__init__.py,sha512={digest},12", *lines[1:]]))
    assert found(installed) == []


@pytest.mark.parametrize(
    "record, code",
    [
        ("one field\n", "RECORD_LINE"),
        ("a.py,sha256=ab,many\n", "RECORD_LINE"),
        ("a.py,sha256=é,1\n", "RECORD_LINE"),
        (f"{'a' * 200_000},sha256=ab,1\n", "RECORD_LINE"),
        ('"a\n', "RECORD_LINE"),
    ],
)
def test_a_line_that_is_none_is_a_finding(record: str, code: str, tmp_path: Path) -> None:
    installed = install(tmp_path, "bad", record=record)
    assert (code, "bad-1.0.dist-info/RECORD") in found(installed)


def test_no_record_an_unreadable_one_and_an_editable_install_are_findings(tmp_path: Path) -> None:
    installed = install(tmp_path, "bare")
    (installed.folder / "RECORD").unlink()
    assert found(installed) == [("NO_RECORD", "bare-1.0.dist-info")]
    (installed.folder / "RECORD").write_bytes(b"\xff")
    assert ("RECORD_UNREADABLE", "bare-1.0.dist-info/RECORD") in found(installed)
    (tmp_path / "single-1.egg-info").write_text("Name: single\n")
    assert found(at(tmp_path, "single-1.egg-info")) == [("NO_RECORD", "single-1.egg-info")]
    (tmp_path / "empty-1.dist-info").mkdir()
    assert found(at(tmp_path, "empty-1.dist-info")) == [("NO_RECORD", "empty-1.dist-info")]
    folder = "edit-1.0.dist-info"
    url = b'{"url": "file:///src", "dir_info": {"editable": true}}'
    assert found(install(tmp_path, "edit", files={f"{folder}/direct_url.json": url})) == [("EDITABLE", folder)]


@pytest.mark.parametrize("url", [b"", b"[]", b'{"dir_info": 1}', b"\xff", b"[" * 100_000])
def test_a_direct_url_that_says_nothing_is_none(url: bytes, tmp_path: Path) -> None:
    files = {"odd-1.0.dist-info/direct_url.json": url}
    assert found(install(tmp_path, "odd", files=files)) == []


def test_however_much_is_found_a_result_stays_small(tmp_path: Path) -> None:
    record = "".join(f"gone/{number}.py,sha256=ab,1\n" for number in range(500))
    findings = inspect(install(tmp_path, "gone", record=record)).findings
    assert len(findings.all) == LIMIT
    unrecorded = ("METADATA", "WHEEL", "RECORD", "gone/__init__.py")
    assert findings.omitted == 500 + len(unrecorded) - LIMIT
    assert {each.severity for each in findings.all} == {Severity.SEVERITY_FAILURE}


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    installed = install(tmp_path, "large")
    with (tmp_path / "large/__init__.py").open("r+b") as file:
        file.truncate(64 * 1024 * 1024)  # no block of it is on disk
    tracemalloc.start()
    try:
        inspect(installed)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
