"""The check of metadata, and the versions and requirements that it reads, beside the library that defines them."""

import platform
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version as ReferenceVersion

from demos.compliance.checks.metadata import check
from demos.compliance.checks.requirements import Requirement, variables_here
from demos.compliance.checks.versions import Version, satisfies
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
        ("gone", ["DEPENDENCY_MISSING"]),
        ("gone; extra == 'test'", []),
        ("gone; python_version < '3.8'", []),
        ("gone; python_version >= '3.8' and os_name != 'none'", ["DEPENDENCY_MISSING"]),
        ("gone; (sys_platform == 'amiga' or extra == 'a') and python_version > '3'", []),
        ("gone; color == 'red'", ["NOT_JUDGED"]),
        ("gone; python_version", ["NOT_JUDGED"]),
        ("gone; os_name < 'z'", ["NOT_JUDGED"]),
        ("!!", ["NOT_JUDGED"]),
        ("gone; " + "(" * 999, ["NOT_JUDGED"]),
    ],
)
def test_what_it_needs_must_be_installed(requirement: str, expected: list[str], tmp_path: Path) -> None:
    install(tmp_path, "dep", "2.5")
    assert codes(tmp_path, f"Requires-Dist: {requirement}\n") == expected


def test_two_versions_side_by_side_fail(tmp_path: Path) -> None:
    install(tmp_path, "it", "2.0")
    assert codes(tmp_path) == ["INSTALLED_TWICE"]


NUMBERS = st.integers(0, 3).map(str)
VERSIONS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "1!", "v"]),
        st.lists(NUMBERS, min_size=1, max_size=3).map(".".join),
        st.sampled_from(["", "", "a1", ".beta2", "rc", "-c1"]),
        st.sampled_from(["", "", ".post1", "-2", ".rev"]),
        st.sampled_from(["", "", ".dev1", "dev"]),
        st.sampled_from(["", "", "+local.1", "+1"]),
    ),
)
SPECIFIERS = st.builds(
    "".join, st.tuples(st.sampled_from(["==", "!=", "<=", ">=", "<", ">", "~=", "==="]), VERSIONS)
) | (st.builds("".join, st.tuples(st.sampled_from(["==", "!="]), NUMBERS, st.sampled_from([".*", ".1.*"]))))


@given(VERSIONS, VERSIONS)
def test_versions_are_ordered_as_the_specification_has_it(one: str, other: str) -> None:
    ours, theirs = (Version.parse(one), Version.parse(other)), (ReferenceVersion(one), ReferenceVersion(other))
    assert (ours[0] < ours[1], ours[0] == ours[1]) == (theirs[0] < theirs[1], theirs[0] == theirs[1])


@given(VERSIONS, st.lists(SPECIFIERS, max_size=2).map(",".join))
def test_specifiers_are_met_as_the_specification_has_it(version: str, specifiers: str) -> None:
    try:
        reference = SpecifierSet(specifiers)
    except InvalidSpecifier:
        assume(False)
        raise
    assert satisfies(version, specifiers) == reference.contains(version, prereleases=True)


ATOMS = st.builds(
    "{} {} '{}'".format,
    st.sampled_from(["python_version", "python_full_version"]),
    st.sampled_from(["==", "!=", "in", "not in", "<", ">="]),
    st.sampled_from(["3.11", "3.8", "4"]),
) | st.builds(
    "{} {} '{}'".format,
    st.sampled_from(["sys_platform", "os_name", "extra"]),
    st.sampled_from(["==", "!=", "in", "not in"]),
    st.sampled_from(["linux", "posix", "test", "linux darwin"]),
)
MARKERS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner) | st.builds("({})".format, inner)
    ),
    max_leaves=5,
)


@given(MARKERS)
def test_markers_mean_what_the_specification_says(marker: str) -> None:
    expected = Marker(marker).evaluate({"extra": ""})
    assert Requirement.parse(f"it; {marker}").is_wanted(variables_here()) == expected
