"""The check of names."""

from pathlib import Path

import pytest

from compliance.v1.compliance_pb2 import Severity
from demos.compliance import settings
from demos.compliance.checks.names import Names, check
from tests.support.distributions import install

NAMES = Names.load(settings.SHIPPED_NAMES)


@pytest.mark.parametrize(
    "name, popular",
    [
        ("reqests", "requests"),
        ("requestss", "requests"),
        ("reqeusts", "requests"),
        ("rewuests", "requests"),
        ("py-yaml", "pyyaml"),
        ("fl4sk", "flask"),
        ("num-py", "numpy"),
        ("1ibrary", ""),
        ("requests", ""),
        ("request-id", ""),
        ("pytest-asyncio", ""),
        ("uv", ""),
        ("psycopg", ""),
    ],
)
def test_a_name_that_can_be_mistaken_for_a_popular_one_is_told(name: str, popular: str) -> None:
    assert NAMES.look_alike(name) == popular


def test_a_known_bad_name_is_a_matter_for_a_person(tmp_path: Path) -> None:
    (bad,) = check(install(tmp_path, "Colourama"), NAMES).all
    assert (bad.code, bad.severity) == ("NAME_KNOWN_BAD", Severity.SEVERITY_GRAVE)
    (alike,) = check(install(tmp_path, "pytset"), NAMES).all
    assert (alike.code, alike.severity) == ("NAME_LOOKS_ALIKE", Severity.SEVERITY_FAILURE)
    assert check(install(tmp_path, "honest"), NAMES).all == []


def test_no_name_is_in_two_lists() -> None:
    assert not NAMES.bad.keys() & (NAMES.popular | NAMES.good)


@pytest.mark.parametrize("text", ["", "bad: []\n", "bad: {}\npopular: 1\ngood: []\n", "{"])
def test_a_list_that_is_none_says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a list of names"):
        Names.load(path)
