"""Which distributions an environment holds, and what of them may be read."""

import importlib.metadata
import sysconfig
from pathlib import Path

import pytest

from demos.compliance.installed import READ_LIMIT, UNKNOWN_VERSION, Environment, Unreadable, normalized
from tests.support.distributions import at, install


def test_it_finds_what_python_finds_in_this_very_environment() -> None:
    site = Path(sysconfig.get_path("purelib"))
    found = {(each.distribution.name, each.distribution.version) for each in Environment("here", site).distributions()}
    pythons = {(normalized(each.name), each.version) for each in importlib.metadata.distributions(path=[str(site)])}
    assert found == pythons


@pytest.mark.parametrize(
    "folder, name, version",
    [
        ("nats_py-2.16.0.dist-info", "nats-py", "2.16.0"),
        ("Zope.Interface-5.0.dist-info", "zope-interface", "5.0"),
        ("six-1.16.0-py3.11.egg-info", "six", "1.16.0"),
        ("old.egg-info", "old", UNKNOWN_VERSION),
        ("~dna-3.20.dist-info", "dna", "3.20"),  # what an installation left that was broken off
    ],
)
def test_a_folder_names_its_distribution(folder: str, name: str, version: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (found,) = Environment("e", tmp_path).distributions()
    assert (found.distribution.name, found.distribution.version) == (name, version)
    assert found.key == f"{name}=={version}@e"


@pytest.mark.parametrize(
    "folder", ["idna", "idna-3.20", "idna.dist-info.bak", ".dist-info", "~-1.dist-info", "a\nb-1.dist-info"]
)
def test_other_folders_are_none(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    assert list(Environment("e", tmp_path).distributions()) == []


def test_of_two_folders_with_one_name_and_version_the_first_counts(tmp_path: Path) -> None:
    install(tmp_path, "twice")
    (tmp_path / "Twice-1.0.dist-info").mkdir()
    assert [each.distribution.folder for each in Environment("e", tmp_path).distributions()] == ["Twice-1.0.dist-info"]


def test_scripts_are_in_the_environment_and_what_is_beside_it_is_not(tmp_path: Path) -> None:
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    environment = Environment("e", site)
    assert environment.root == tmp_path / "venv"
    assert environment.locate("../../../bin/idna") == site / "../../../bin/idna"
    for outside in ("../../../../secret", "/etc/passwd", "a\0b"):
        assert environment.locate(outside) is None
    (site / "link").symlink_to(tmp_path)
    assert environment.locate("link/secret") is None
    (site / "loop").symlink_to(site / "loop")
    assert environment.locate("loop/file") is None


def test_metadata_that_cant_be_read_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "empty-1.dist-info"
    empty.mkdir()
    with pytest.raises(Unreadable, match="neither METADATA nor PKG-INFO"):
        at(tmp_path, empty.name).metadata()
    with pytest.raises(Unreadable, match="not UTF-8"):
        install(tmp_path, "latin", metadata="Name: ü".encode("latin-1")).metadata()
    with pytest.raises(Unreadable, match="has more than"):
        install(tmp_path, "large", metadata=b"a" * (READ_LIMIT + 1)).metadata()
    (empty / "METADATA").mkdir()
    with pytest.raises(Unreadable, match="not a regular file"):
        at(tmp_path, empty.name).metadata()
    (tmp_path / "link-1.dist-info").mkdir()
    (tmp_path / "link-1.dist-info" / "METADATA").symlink_to("/etc/passwd")
    with pytest.raises(Unreadable, match="leads out"):
        at(tmp_path, "link-1.dist-info").metadata()


def test_an_egg_info_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "apt-2.0.egg-info").write_text("Name: apt\nVersion: 2.0\n")
    assert at(tmp_path, "apt-2.0.egg-info").metadata()["Version"] == "2.0"
