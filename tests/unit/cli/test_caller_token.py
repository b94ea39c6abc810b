"""Which token a command sends: the one it is given, or else that of the login for the address it calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.cli.client import Client
from handrail.cli.login.stored_login import StoredLogin, save
from handrail.mesh.setting import Settings

ADDRESS = "127.0.0.1:7"


@pytest.fixture(autouse=True)
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    save(ADDRESS, StoredLogin("", "", "", "", "", "", "of-the-login", "", ""))


def sent(flags: dict[str, str | None], environment: dict[str, str]) -> object:
    """The metadata of a command's calls."""
    with Client.of(Settings({"address": ADDRESS, **flags}, environment)) as client:
        return client._metadata


def test_without_another_token_that_of_the_login_is_sent() -> None:
    assert sent({}, {}) == (("authorization", "Bearer of-the-login"),)


def test_a_token_that_is_given_comes_before_the_login(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    assert sent({"token_file": str(tmp_path / "token")}, {}) == (("authorization", "Bearer of-the-file"),)
    assert sent({}, {"HANDRAIL_TOKEN": "given"}) == (("authorization", "Bearer given"),)


def test_an_empty_token_file_is_not_replaced_by_the_login(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    assert sent({"token_file": str(tmp_path / "token")}, {}) == ()


def test_the_login_is_not_sent_to_another_address() -> None:
    assert sent({"address": "127.0.0.1:8"}, {}) == ()
