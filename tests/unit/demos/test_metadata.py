"""The check of metadata."""

import platform
from pathlib import Path

import pytest

from demos.compliance.checks.metadata import check
from tests.support.distributions import METADATA, at, install


def codes(site: Path, also: str = "", *, metadata: str | bytes = METADATA) -> list[str]:
    return [each.code for each in check(install(site, "it", metadata=metadata, also=also)).all]


def test_whole_metadata_has_no_finding(tmp_path: Path) -> None:
    assert codes(tmp_path) == []


def test_what_must_be_there_fails_and_what_people_look_for_is_noted(tmp_path: Path) -> None:
    assert codes(tmp_path, metadata="Name: it\n") == ["FIELD_MISSING", "FIELD_MISSING", "METADATA_INCOMPLETE"]
    (note,) = check(install(tmp_path, "it", metadata="Metadata-Version: 2.4\nName: It\nVersion: 1\n")).all
    assert "whom to ask" in note.text


def test_metadata_and_folder_must_mean_the_same(tmp_path: Path) -> None:
    assert codes(tmp_path, metadata=METADATA.replace("{name}", "other")) == ["NAME_DIFFERS"]
    assert codes(tmp_path, metadata=METADATA.replace("{version}", "1.1")) == ["VERSION_DIFFERS"]
    assert codes(tmp_path, metadata=METADATA.replace("{version}", "1.0.0")) == []


def test_unreadable_metadata_is_a_finding(tmp_path: Path) -> None:
    assert codes(tmp_path, metadata=b"\xff") == ["METADATA_UNREADABLE"]
    (tmp_path / "empty-1.dist-info").mkdir()
    assert [each.code for each in check(at(tmp_path, "empty-1.dist-info")).all] == ["METADATA_UNREADABLE"]


def test_it_must_be_for_this_python(tmp_path: Path) -> None:
    assert codes(tmp_path, metadata=METADATA.replace(">=3.8", "<3")) == ["WRONG_PYTHON"]
    assert codes(tmp_path, metadata=METADATA.replace(">=3.8", f"=={platform.python_version()}")) == []
    assert codes(tmp_path, metadata=METADATA.replace(">=3.8", "new")) == ["NOT_JUDGED"]


@pytest.mark.parametrize(
    "requirement, expected",
    [
        ("dep", []),
        ("DEP >= 2.0", []),
        ("dep (>=2,<3)", []),
        ("dep[extra]>=2.4", []),
        ("dep>=3", ["DEPENDENCY_VERSION"]),
        ("early>=1.0a1", []),
        ("early", []),
        ("early>=1.0", ["DEPENDENCY_VERSION"]),
        ("unread", []),
        ("unread>=1", ["NOT_JUDGED"]),
        ("gone", ["DEPENDENCY_MISSING"]),
        ("gone; extra == 'test'", []),
        ("gone; python_version < '3.8'", []),
        ("gone; python_version >= '3.8' and os_name != 'none'", ["DEPENDENCY_MISSING"]),
        ("gone; (sys_platform == 'amiga' or extra == 'a') and python_version > '3'", []),
        ("gone; color == 'red'", ["NOT_JUDGED"]),
        ("gone; python_version", ["NOT_JUDGED"]),
        # Texts have no order: the library holds none of them to be less than another.
        ("gone; os_name < 'z'", []),
        ("gone; os_name ~= 'z'", ["NOT_JUDGED"]),
        ("!!", ["NOT_JUDGED"]),
        ("gone; " + "(" * 999, ["NOT_JUDGED"]),
    ],
)
def test_what_it_needs_must_be_installed(requirement: str, expected: list[str], tmp_path: Path) -> None:
    install(tmp_path, "dep", "2.5")
    install(tmp_path, "early", "1.0rc1")
    install(tmp_path, "unread", "new")
    assert codes(tmp_path, f"Requires-Dist: {requirement}\n") == expected


def test_two_versions_side_by_side_fail(tmp_path: Path) -> None:
    install(tmp_path, "it", "2.0")
    assert codes(tmp_path) == ["INSTALLED_TWICE"]
