"""The folder of the broker's credentials: what is in it stays, and what the broker is told lets nobody in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from handrail.cli.credentials import CredentialsFolder
from handrail.cli.exit_codes import CommandError
from handrail.mesh.bus import BusSettings
from handrail.mesh.bus.nkey import public_key
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import Reader
from handrail.mesh.permissions.accounts import AGENTS, READERS
from handrail.v1.template_pb2 import FlowTemplate, Step
from tests.support import accounts
from tests.support.accounts import asked_and_granted

AGENTS_OF_REFUND = ("desk", "refunds")
SEED = accounts.seed("desk")


def with_agent(name: str) -> FlowTemplate:
    return asked_and_granted(Step(name="more", agent=name, after=["shop.v1.Granted"]), version=2)


@pytest.fixture
def folder(tmp_path: Path) -> CredentialsFolder:
    return CredentialsFolder(tmp_path / "credentials")


def generated(folder: CredentialsFolder, *templates: FlowTemplate, passwords: bool = False) -> str:
    return folder.configuration(templates or (asked_and_granted(),), passwords=passwords).text


def entries(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Account and entry of each user of a configuration."""
    for account, settings in json.loads(text[text.index("{") :]).items():
        for entry in settings.get("users", ()):
            yield account, entry


def keys(text: str) -> set[str]:
    return {entry["nkey"] for _, entry in entries(text)}


def seed(folder: CredentialsFolder, user: str) -> str:
    return folder.user(user).nkey.read_text().strip()


def account(folder: CredentialsFolder, text: str, user: str) -> str:
    """The account of a user with an nkey."""
    return next(account for account, entry in entries(text) if entry["nkey"] == public_key(seed(folder, user)))


def test_every_user_has_an_nkey_of_its_own_and_the_broker_only_its_public_key(folder: CredentialsFolder) -> None:
    text = generated(folder)
    users = sorted(path.name for path in folder.path.iterdir())
    assert set(users) >= {*AGENTS_OF_REFUND, "coordinator", "setup", "retention", "admin", "viewer", "monitor", "sys"}
    assert keys(text) == {public_key(seed(folder, user)) for user in users}
    assert len(keys(text)) == len(users)
    for user in users:
        assert seed(folder, user) not in text
        assert folder.user(user).nkey.stat().st_mode & 0o077 == 0


def test_generating_again_changes_nothing(folder: CredentialsFolder) -> None:
    folder.user("desk").create(password=True)
    assert generated(folder) == generated(folder)


def test_a_password_is_told_to_the_broker_as_a_cheap_hash_alone_p6(folder: CredentialsFolder) -> None:
    text = generated(folder, passwords=True)
    for _, entry in entries(text):
        password = folder.user(entry["user"]).password
        assert password.stat().st_mode & 0o077 == 0
        assert password.read_text().strip() not in text
        assert entry["password"].startswith("$2b$04$")
        assert bcrypt.checkpw(password.read_text().strip().encode(), entry["password"].encode())


def test_another_password_has_another_hash(folder: CredentialsFolder) -> None:
    before = generated(folder, passwords=True)
    folder.user("desk").password.write_text("of their own\n")
    after = {entry["user"]: entry["password"] for _, entry in entries(generated(folder, passwords=True))}
    assert bcrypt.checkpw(b"of their own", after["desk"].encode())
    changed = {entry["user"] for _, entry in entries(before) if entry["password"] != after[entry["user"]]}
    assert changed == {"desk"}


def test_an_installation_with_passwords_keeps_them(folder: CredentialsFolder) -> None:
    generated(folder, passwords=True)
    found = folder.configuration((asked_and_granted(), with_agent("packing")))
    assert "desk" in found.with_passwords
    assert "packing" not in found.with_passwords
    assert folder.user("packing").nkey.exists()
    assert not folder.user("desk").nkey.exists()


def test_a_process_is_told_the_file_of_its_own_user(folder: CredentialsFolder) -> None:
    folder.user("desk").create()
    folder.user("refunds").create(password=True)
    desk, refunds = folder.user("desk"), folder.user("refunds")
    assert desk.environment() == {"HANDRAIL_NATS_NKEY_FILE": str(desk.nkey)}
    assert refunds.environment()["HANDRAIL_NATS_PASSWORD_FILE"] == str(refunds.password)
    settings = BusSettings(servers=("nats://127.0.0.1:1",), name="x", user="y", password="z")
    assert desk.login(settings).credentials() == (None, seed(folder, "desk"))
    assert (desk.login(settings).password, refunds.login(settings).user) == ("", "refunds")


def test_both_nkeys_are_valid_until_the_former_one_is_retired(folder: CredentialsFolder) -> None:
    text = generated(folder)
    others, former = keys(text), public_key(seed(folder, "refunds"))
    folder.user("refunds").rotate()
    new = public_key(seed(folder, "refunds"))
    assert new not in others
    assert keys(generated(folder)) == others | {new}
    assert {name for name, entry in entries(generated(folder)) if entry["nkey"] in (former, new)} == {
        account(folder, text=generated(folder), user="refunds")
    }
    folder.user("refunds").retire()
    assert keys(generated(folder)) == (others - {former}) | {new}


def test_a_password_becomes_an_nkey_by_rotation(folder: CredentialsFolder) -> None:
    generated(folder, passwords=True)
    folder.user("desk").rotate()
    both = [entry for _, entry in entries(generated(folder)) if entry.get("user") == "desk" or "nkey" in entry]
    assert [sorted(entry) for entry in both] == [["nkey", "permissions"], ["password", "permissions", "user"]]
    folder.user("desk").retire()
    assert not folder.user("desk").password.exists()
    assert "desk" not in folder.configuration((asked_and_granted(),)).with_passwords


def test_a_third_credential_is_refused_and_so_is_retiring_the_only_one(folder: CredentialsFolder) -> None:
    generated(folder)
    with pytest.raises(CommandError, match="rotate first"):
        folder.user("desk").retire()
    folder.user("desk").rotate()
    with pytest.raises(CommandError, match="--retire desk"):
        folder.user("desk").rotate()


def test_who_is_suspended_is_unknown_to_the_broker_and_keeps_nkey_and_place(folder: CredentialsFolder) -> None:
    before = generated(folder)
    place = account(folder, before, "desk")
    folder.user("desk").suspended = True
    found = folder.configuration((asked_and_granted(), with_agent("packing")))
    assert found.suspended == ("desk",)
    assert "desk" not in found.users
    assert public_key(seed(folder, "desk")) not in found.text
    assert account(folder, found.text, "packing") != place
    folder.user("desk").suspended = False
    assert generated(folder) == before


def test_agents_keep_their_places_whoever_comes(folder: CredentialsFolder) -> None:
    before = generated(folder)
    after = generated(folder, asked_and_granted(), with_agent("a-first-name"))
    for agent in AGENTS_OF_REFUND:
        assert account(folder, after, agent) == account(folder, before, agent)
    assert account(folder, after, "a-first-name") == AGENTS.account(2)


def test_a_reader_is_kept_with_its_flow_types(folder: CredentialsFolder) -> None:
    folder.add_reader(Reader("analytics", ("refund", "order")), [asked_and_granted()])
    text = generated(folder)
    assert account(folder, text, "analytics") == READERS.account(0)
    assert folder.readers() == (Reader("analytics", ("refund", "order")),)
    folder.add_reader(Reader("analytics", ("order",)), [asked_and_granted()])
    assert folder.readers() == (Reader("analytics", ("order",)),)
    assert "reader-analytics" in generated(folder)
    assert folder.guests([asked_and_granted()]) == ("analytics", *AGENTS_OF_REFUND)


def test_a_reader_with_the_name_of_an_agent_is_refused_and_not_kept(folder: CredentialsFolder) -> None:
    with pytest.raises(HandrailError, match='"desk" is an agent'):
        folder.add_reader(Reader("desk", ("refund",)), [asked_and_granted()])
    assert folder.readers() == ()


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("nkey", b"SUA", "holds no seed"),
        ("nkey", SEED.replace("S", "X", 1).encode(), "holds no seed"),
        ("nkey", b"\xff\xfe", "can't be used"),
        ("nkey.former", SEED.encode(), "no public key"),
        ("password", b"x" * 100, "can't be hashed"),
        ("password", b"", "is empty"),
        ("place", b"first", "number of a place"),
    ],
)
def test_a_file_that_holds_something_else_is_named(
    folder: CredentialsFolder, name: str, content: bytes, told: str
) -> None:
    path = folder.path / "desk" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(CommandError, match=told) as error:
        generated(folder)
    assert str(path) in error.value.text
