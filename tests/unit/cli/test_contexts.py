"""Contexts: whose values count, to whom a token goes, and what is kept."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from handrail.cli.contexts import Contexts, with_context
from handrail.cli.exit_codes import CommandError
from handrail.cli.recent_flows import RecentFlow, RecentFlows
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings
from tests.support.dev import handrail


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration, with a context that is in use and another one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    prod = {"address": "prod.example.com:7070", "ca": "/ca.pem", "token_file": "/token"}
    Contexts("prod", {"prod": prod, "test": {"address": "127.0.0.1:7071"}}).write()
    return tmp_path / "handrail"


def chosen(flags: dict[str, str | None], environment: dict[str, str]) -> tuple[str, str]:
    """The address that is called, and the file of the token that it gets."""
    settings = with_context(Settings({"context": None, **flags}, environment))
    return settings.value(table.ADDRESS), str(settings.value(table.TOKEN_FILE) or "")


def test_a_flag_comes_before_the_environment_and_this_before_the_context(folder: Path) -> None:
    prod = "prod.example.com:7070"
    assert chosen({}, {}) == (prod, "/token")
    assert chosen({}, {"HANDRAIL_TOKEN_FILE": "/other"}) == (prod, "/other")
    assert chosen({}, {"HANDRAIL_TOKEN_FILE": ""}) == (prod, "/token"), "an empty variable is not set"
    assert chosen({"token_file": "/flag"}, {"HANDRAIL_TOKEN_FILE": "/other"}) == (prod, "/flag")
    assert chosen({"context": "test"}, {}) == ("127.0.0.1:7071", "")
    assert chosen({"context": "test"}, {"HANDRAIL_CONTEXT": "prod"}) == ("127.0.0.1:7071", "")
    assert chosen({}, {"HANDRAIL_CONTEXT": "test"}) == ("127.0.0.1:7071", "")


@pytest.mark.parametrize(
    "flags, environment", [({"address": "a:1"}, {}), ({}, {"HANDRAIL_ADDRESS": "a:1"})], ids=["flag", "variable"]
)
def test_p6_the_token_of_a_context_goes_to_its_own_address(
    folder: Path, flags: dict[str, str | None], environment: dict[str, str]
) -> None:
    assert chosen(flags, environment) == ("a:1", "")
    with pytest.raises(CommandError, match=r"context prod is prod.example.com:7070, and --address or HANDRAIL_ADDRESS"):
        chosen({**flags, "context": "prod"}, environment)


def test_a_context_that_is_not_there_is_told_with_one_that_is(folder: Path) -> None:
    with pytest.raises(CommandError, match=r'no context "prd"; did you mean prod\?'):
        chosen({"context": "prd"}, {})


def test_without_contexts_everything_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert chosen({}, {}) == ("127.0.0.1:7070", "")


@pytest.mark.parametrize("content", ["{", "[]", '{"current": "a"}', '{"current": "a", "contexts": {"a": {}}}', "\x00"])
def test_a_file_that_holds_no_contexts_is_told(folder: Path, content: str) -> None:
    (folder / "contexts.json").write_text(content)
    with pytest.raises(CommandError, match="holds no contexts: correct it, or delete it"):
        chosen({}, {})


@pytest.mark.parametrize("content", ["{", '{"current": "gone", "contexts": {}}'])
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_command_that_names_an_address_needs_no_contexts(folder: Path, content: str, by: str) -> None:
    (folder / "contexts.json").write_text(content)
    flags, environment = ({"address": "a:1"}, {}) if by == "flag" else ({}, {"HANDRAIL_ADDRESS": "a:1"})
    assert chosen({**flags}, environment) == ("a:1", "")
    with pytest.raises(CommandError):
        chosen({**flags, "context": "prod"}, environment)
    with pytest.raises(CommandError):
        chosen({}, {})


@pytest.mark.parametrize("home", [None, "/dev/null"])
def test_a_user_without_a_home_folder_names_an_address(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(monkeypatch, home)
    assert chosen({"address": "a:1"}, {"HANDRAIL_TOKEN_FILE": "/token"}) == ("a:1", "/token")
    with pytest.raises(CommandError, match="set HOME or XDG_CONFIG_HOME" if home is None else "can't be read"):
        chosen({}, {})
    flows = RecentFlows("a:1")
    flows.add([RecentFlow("0" * 32, "refund")])
    assert flows.read() == [], "they only save typing"


def homeless(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """Leaves the process this home folder, and no user to look it up for."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)


def test_contexts_are_kept_changed_and_deleted(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return handrail("context", *words, env=env)

    assert run("list").stdout == "No contexts.\n"
    assert run("set", "prod").stderr == "handrail: a context needs an address: name it with --address\n"
    kept = run("set", "prod", "--address", "prod.example.com:7070", "--ca", "ca.pem", "--token-file", "~/token")
    assert "prod is prod.example.com:7070; handrail context use prod" in kept.stdout
    [file] = (tmp_path / "handrail").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert run("use", "prod").stdout == "commands call prod.example.com:7070\n"
    shown = json.loads(run("show", "--output", "json").stdout)
    assert (shown["name"], shown["current"], shown["ca"]) == ("prod", True, str(Path("ca.pem").absolute()))
    assert shown["token_file"] == str(Path("~/token").expanduser())
    assert run("set", "prod", "--ca", "", "--tls", "on").returncode == 0
    assert run("show").stdout.splitlines()[:3] == [
        *("context     prod", "address     prod.example.com:7070", "tls         on"),
    ]
    assert run("list").stdout.splitlines()[1].split()[:4] == ["*", "prod", "prod.example.com:7070", "on"]
    assert run("set", "bad", "--address", "nowhere").returncode == 2
    assert run("set", "a/b", "--address", "a:1").returncode == 2
    assert run("use", "-").stdout == "no context is in use\n"
    assert run("show").returncode == 4
    assert run("delete", "prod").stdout == "prod is deleted\n"
    assert (run("use", "prod").returncode, run("list").stdout) == (4, "No contexts.\n")
