"""Settings: flag before environment before default, one table for code, help and documentation."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.cli.arguments import GROUPS, Group, add_settings, reference, settings_of
from handrail.cli.main import parser
from handrail.mesh import settings as table
from handrail.mesh.setting import Setting, SettingError, Settings
from handrail.mesh.setting_parsers import duration
from handrail.mesh.settings import bus_settings

ROOT = Path(__file__).parents[3]


def every_setting() -> list[Setting[object]]:
    return [value for value in vars(table).values() if isinstance(value, Setting)]


def test_a_flag_comes_before_the_environment_and_that_before_the_default() -> None:
    assert Settings({}, {}).value(table.LEASE_TTL) == timedelta(seconds=15)
    assert Settings({}, {"HANDRAIL_LEASE_TTL": "20s"}).value(table.LEASE_TTL) == timedelta(seconds=20)
    both = Settings({"lease_ttl": "30s"}, {"HANDRAIL_LEASE_TTL": "20s"})
    assert both.value(table.LEASE_TTL) == timedelta(seconds=30)
    not_given = Settings({"lease_ttl": None}, {"HANDRAIL_LEASE_TTL": ""})
    assert not_given.value(table.LEASE_TTL) == timedelta(seconds=15)


@pytest.mark.parametrize("setting", every_setting(), ids=lambda setting: setting.env)
def test_every_default_can_be_used(setting: Setting[object]) -> None:
    assert Settings({}, {}).value(setting) == setting.parse(setting.default)


@pytest.mark.parametrize("setting", every_setting(), ids=lambda setting: setting.env)
def test_every_setting_is_documented(setting: Setting[object]) -> None:
    assert any(setting in group.settings for group in GROUPS)


@pytest.mark.parametrize("setting", every_setting(), ids=lambda setting: setting.env)
def test_flag_and_variable_have_one_name(setting: Setting[object]) -> None:
    assert setting.flag in ("", "--" + setting.env.removeprefix("HANDRAIL_").lower().replace("_", "-"))


def test_the_documentation_is_the_table() -> None:
    written = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert written == reference(), "make it anew: python -m handrail.cli.arguments > docs/settings.md"


@pytest.mark.parametrize(
    "command, group",
    list(
        zip(
            ["flow list", "login", "coordinator", "admin setup", "visibility", "console", "agent run"],
            GROUPS,
            strict=True,
        )
    ),
)
def test_the_help_names_flag_variable_and_default(command: str, group: Group) -> None:
    # argparse breaks lines where it likes.
    text = "".join(help_of(command).split())
    for setting in group.settings:
        if setting.flag:
            assert f"{setting.flag}{setting.metavar}" in text
            assert f"[{setting.env}" in text
            assert setting.default in text


def help_of(command: str) -> str:
    found = parser()
    for word in command.split():
        subcommands = [a for a in found._actions if isinstance(a, argparse._SubParsersAction)]
        found = subcommands[0].choices[word]
    return found.format_help()


def test_a_parsed_command_line_gives_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDRAIL_TIMEOUT", "3s")
    command = argparse.ArgumentParser()
    add_settings(command, [table.ADDRESS, table.TIMEOUT])
    settings = settings_of(command.parse_args(["--address", "there:1"]))
    assert settings.value(table.ADDRESS) == "there:1"
    assert settings.value(table.TIMEOUT) == timedelta(seconds=3)


@pytest.mark.parametrize("text, expected", [("500ms", 0.5), ("15s", 15), ("2m", 120), ("1.5h", 5400), ("0s", 0)])
def test_durations_are_read(text: str, expected: float) -> None:
    assert duration(text) == timedelta(seconds=expected)


@pytest.mark.parametrize("text", ["", "15", "s", "-1s", "1 s", "1d", "1s2m", "nan s", "٣s"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


WRONG = [
    (table.NATS, "localhost:4222", "not an address such as"),
    (table.NATS, ",", "needed"),
    (table.ADDRESS, "7070", "not an address such as"),
    (table.ADDRESS, "host:", "not an address such as"),
    (table.ADDRESS, "host:70000", "not an address such as"),
    (table.REPLICAS, "2", "not one of 1, 3"),
    (table.WORKERS, "0", "whole number"),
    (table.WORKERS, "²", "whole number"),
    (table.LEASE_TTL, "10ms", "less than 1 s"),
    (table.OUTPUT, "xml", "not one of table, json"),
    (table.REFLECTION, "yes", "not one of on, off"),
    (table.LOG_LEVEL, "loud", "not one of debug"),
]


@pytest.mark.parametrize("setting, text, complaint", WRONG)
def test_a_value_that_can_not_be_used_names_where_it_came_from(
    setting: Setting[object], text: str, complaint: str
) -> None:
    with pytest.raises(SettingError, match=complaint) as from_flag:
        Settings({setting.key: text}, {}).value(setting)
    assert str(from_flag.value).startswith(f"{setting.flag}: ")
    with pytest.raises(SettingError, match=complaint) as from_environment:
        Settings({}, {setting.env: text}).value(setting)
    assert str(from_environment.value).startswith(f"{setting.env}: ")


def test_lists_are_separated_by_commas() -> None:
    servers = Settings({"nats": "nats://a:1, tls://b:2"}, {}).value(table.NATS)
    assert servers == ("nats://a:1", "tls://b:2")
    keys = Settings({}, {"HANDRAIL_JWT_PUBLIC_KEYS": "/a.pem,/b.pem"}).value(table.JWT_PUBLIC_KEYS)
    assert keys == (Path("/a.pem"), Path("/b.pem"))


def test_an_agent_connects_as_itself_with_the_password_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    bus = bus_settings(Settings({}, {"HANDRAIL_NATS_PASSWORD_FILE": str(file)}), "ledger")
    assert (bus.name, bus.user, bus.password, bus.inbox_prefix) == ("ledger", "ledger", "secret", "_INBOX_ledger")
    other = bus_settings(Settings({"nats_user": "books"}, {"HANDRAIL_NATS_PASSWORD": "x"}), "ledger")
    assert (other.name, other.user, other.inbox_prefix) == ("ledger", "books", "_INBOX_books")
    assert bus_settings(Settings({}, {}), "ledger").user == ""


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="can't be read: No such file"):
        bus_settings(Settings({"nats_password_file": str(tmp_path / "none")}, {}), "ledger")


def test_the_claims_that_are_not_mapped_keep_their_names() -> None:
    assert Settings({"jwt_claims": "roles=realm_access.roles, subject=email"}, {}).value(table.JWT_CLAIMS) == {
        "roles": "realm_access.roles",
        "subject": "email",
    }


WRONG_TOKEN_SETTINGS = {
    "jwt_claims": ["roles", "roles=", "groups=x", "=x"],
    "jwt_algorithms": ["", "HS256", "EdDSA,none", "RS384"],
    "jwt_key_set": ["http://example.com/keys", "ftp://example.com/keys", "https://u:p@example.com/"],
    "jwt_max_lifetime": ["0s", "59s", "for ever"],
}


@pytest.mark.parametrize("key, text", [(key, text) for key, texts in WRONG_TOKEN_SETTINGS.items() for text in texts])
def test_a_setting_that_would_weaken_the_verification_of_tokens_is_refused(key: str, text: str) -> None:
    (setting,) = (each for each in table.TOKENS if each.key == key)
    with pytest.raises(SettingError, match=setting.flag):
        Settings({key: text}, {}).value(setting)
