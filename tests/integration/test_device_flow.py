"""Logging in by the device flow: what a provider may answer, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.login.device_flow import Code, Request, Tokens, begin, wait
from handrail.cli.login.provider import Provider, discover
from handrail.cli.login.stored_login import StoredLogin, forget, load, path_of, save, token_for
from handrail.mesh.https import FetchError
from tests.support.web_server import WebServer, web_server

REQUEST = Request("handrail-cli", "openid", "")
TOKENS = {"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 600, "refresh_token": "r"}
CODE = {
    "device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://id.example.com/device",
    "verification_uri_complete": "https://id.example.com/device?user_code=ABCD-EFGH", "expires_in": 600, "interval": 2,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for logins of this test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def answer(server: WebServer, *answers: dict[str, Any]) -> None:
    """Have the server answer with each of these in turn, and with the last from then on; an `error` is a refusal."""
    left = list(answers)

    def next_answer() -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        server.page.status = int(now.get("status", 400 if "error" in now else 200))
        server.page.body = json.dumps(now).encode()

    server.page.wait = next_answer


def provider(server: WebServer) -> Provider:
    return Provider(server.url, server.url, server.url, server.url)


class Time:
    """The time of a command that waits: it passes as the command sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        return sum(self.slept)


def waited(server: WebServer, code: Code) -> tuple[Tokens, list[float]]:
    """The tokens, and how long the command slept before each question."""
    time = Time()
    return wait(provider(server), REQUEST, code, sleep=time.sleep, clock=time.clock), time.slept


def test_the_provider_is_asked_as_often_as_it_wants_until_the_code_is_confirmed(server: WebServer) -> None:
    answer(server, CODE)
    code = begin(provider(server), REQUEST)
    assert (code.user_code, code.direct_link) == ("ABCD-EFGH", CODE["verification_uri_complete"])
    pending, slower = {"error": "authorization_pending"}, {"error": "slow_down"}
    answer(server, pending, slower, pending, TOKENS)
    tokens, slept = waited(server, code)
    assert (tokens.access_token, tokens.refresh_token) == ("a.b.c", "r")
    assert slept == [2, 2, 7, 7]


def test_a_provider_that_does_not_answer_is_asked_less_often(server: WebServer) -> None:
    answer(server, CODE)
    code = begin(provider(server), REQUEST)
    answer(server, {"status": 503}, {"status": 503}, TOKENS)
    assert waited(server, code)[1] == [2, 4, 8]


@pytest.mark.parametrize("error", ["access_denied", "invalid_client", "server_error"])
def test_a_refusal_ends_the_login(server: WebServer, error: str) -> None:
    answer(server, CODE)
    code = begin(provider(server), REQUEST)
    answer(server, {"error": error, "error_description": "no\x1b[31m"})
    with pytest.raises(CommandError, match=r"the identity provider refuses: no\\x1b\[31m") as refusal:
        waited(server, code)
    assert refusal.value.code is Exit.FORBIDDEN


@pytest.mark.parametrize("error", ["expired_token", "authorization_pending"])
def test_a_code_that_nobody_confirms_expires(server: WebServer, error: str) -> None:
    answer(server, CODE)
    code = begin(provider(server), REQUEST)
    answer(server, {"error": error})
    with pytest.raises(CommandError, match="expired before it was confirmed"):
        waited(server, code)


BAD_CODES: dict[str, dict[str, Any]] = {
    "a link that runs a program": {"verification_uri": "javascript:alert(1)"},
    "a link without TLS": {"verification_uri": "http://id.example.com/device"},
    "a link with control characters": {"verification_uri_complete": "https://id.example.com/\x1b]0;x\x07"},
    "a code with control characters": {"user_code": "AB\x1b[2J"},
    "no code": {"device_code": ""},
    "a code that is a number": {"user_code": 7},
}


@pytest.mark.parametrize("case", BAD_CODES)
def test_what_can_not_be_shown_to_a_person_is_not_shown(server: WebServer, case: str) -> None:
    answer(server, {**CODE, **BAD_CODES[case]})
    with pytest.raises(CommandError, match="the identity provider's"):
        begin(provider(server), REQUEST)


def test_a_provider_that_names_another_issuer_is_not_believed(server: WebServer) -> None:
    issuer = server.url.removesuffix("/keys")
    answer(server, {"issuer": "https://elsewhere.example.com", "token_endpoint": server.url})
    with pytest.raises(CommandError, match=r"says that its issuer is https://elsewhere.example.com"):
        discover(issuer, None)


ENDPOINTS = ("device_authorization_endpoint", "token_endpoint", "revocation_endpoint")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_provider_by_tls_leads_to_nothing_without_it(tmp_path: Path, name: str) -> None:
    with web_server(tmp_path / "tls") as server:
        issuer = server.url.removesuffix("/keys")
        named = {"issuer": issuer, **dict.fromkeys(ENDPOINTS, server.url)}
        answer(server, named)
        assert discover(issuer, server.ca).token == server.url
        answer(server, {**named, name: "http://127.0.0.1:7070/"})
        with pytest.raises(CommandError, match=f"{name} can't be used: it must begin with https://"):
            discover(issuer, server.ca)


@pytest.mark.parametrize("name", ["verification_uri", "verification_uri_complete"])
def test_a_provider_by_tls_sends_nobody_to_a_page_without_it(tmp_path: Path, name: str) -> None:
    with web_server(tmp_path / "tls") as server:
        answer(server, {**CODE, name: "http://127.0.0.1:7070/"})
        secure = replace(provider(server), ca=server.ca)
        with pytest.raises(CommandError, match=f"{name} is not safe to open: it must begin with https://"):
            begin(secure, REQUEST)


def test_a_stored_login_of_a_provider_by_tls_asks_nothing_without_it(server: WebServer) -> None:
    stored = Provider("https://id.example.com", "", server.url, server.url)
    with pytest.raises(FetchError, match="is not asked: it must begin with https://"):
        stored.post(server.url, {"refresh_token": "r"})
    assert server.asked == []


@pytest.mark.parametrize("endpoint", ["http://example.com/token", "file:///etc/passwd", 7])
def test_an_endpoint_that_is_not_safe_to_ask_is_refused(server: WebServer, endpoint: Any) -> None:
    issuer = server.url.removesuffix("/keys")
    answer(server, {"issuer": issuer, "token_endpoint": endpoint, "device_authorization_endpoint": server.url})
    with pytest.raises(CommandError, match="token_endpoint can't be used"):
        discover(issuer, None)


def test_a_provider_without_the_device_flow_says_what_to_do(server: WebServer) -> None:
    issuer = server.url.removesuffix("/keys")
    answer(server, {"issuer": issuer, "token_endpoint": server.url})
    with pytest.raises(CommandError, match="offers no device flow"):
        discover(issuer, None)


ADDRESS = "coordinator.example.com:7070"


def login(server: WebServer, **changes: str) -> StoredLogin:
    """A login that has expired and can be refreshed."""
    fields = {
        "issuer": server.url, "client_id": "handrail-cli", "resource": "", "token_endpoint": server.url,
        "revocation_endpoint": server.url, "ca": "", "access_token": "old", "refresh_token": "r",
        "expires_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return StoredLogin(**{**fields, **changes})


def test_a_login_is_for_one_address_and_readable_by_its_owner_alone(server: WebServer) -> None:
    save(ADDRESS, login(server, expires_at=""))
    assert token_for(ADDRESS) == "old"
    assert token_for("coordinator.example.com:7071") == ""
    assert token_for("elsewhere.example.com:7070") == ""
    assert path_of(ADDRESS).stat().st_mode & 0o777 == 0o600
    assert path_of(ADDRESS).parent.stat().st_mode & 0o777 == 0o700
    assert forget(ADDRESS)
    assert token_for(ADDRESS) == ""
    assert not forget(ADDRESS)


def test_an_expired_login_is_refreshed_and_keeps_what_the_provider_sends(server: WebServer) -> None:
    save(ADDRESS, login(server))
    answer(server, {**TOKENS, "access_token": "new", "refresh_token": "second"})
    assert token_for(ADDRESS) == "new"
    assert token_for(ADDRESS) == "new"
    stored = load(ADDRESS)
    assert stored is not None
    assert (stored.refresh_token, len(server.asked)) == ("second", 1)


def test_a_login_that_can_not_be_refreshed_says_what_to_do(server: WebServer) -> None:
    save(ADDRESS, login(server, refresh_token=""))
    with pytest.raises(CommandError, match="has expired; log in again: handrail login"):
        token_for(ADDRESS)
    save(ADDRESS, login(server))
    answer(server, {"error": "invalid_grant"})
    with pytest.raises(CommandError, match=r"can't be refreshed \(invalid_grant\); log in again") as refusal:
        token_for(ADDRESS)
    assert refusal.value.code is Exit.FORBIDDEN
    answer(server, {"status": 503})
    with pytest.raises(CommandError, match="HTTP 503") as refusal:
        token_for(ADDRESS)
    assert refusal.value.code is Exit.UNREACHABLE


def test_a_login_that_others_may_read_or_that_is_broken_is_not_used(server: WebServer) -> None:
    save(ADDRESS, login(server, expires_at=""))
    path_of(ADDRESS).chmod(0o640)
    with pytest.raises(CommandError, match="others may read"):
        token_for(ADDRESS)
    path_of(ADDRESS).chmod(0o600)
    for broken in ("", "[]", "{}", '{"issuer": 1}'):
        path_of(ADDRESS).write_text(broken)
        with pytest.raises(CommandError, match="is not a stored login"):
            token_for(ADDRESS)


def test_no_address_leads_out_of_the_folder_of_logins(state: Path) -> None:
    for address in ("../../etc/passwd:1", "/etc/passwd:7070", "[::1]:7070", "a/../../b:1"):
        assert path_of(address).parent == state / "handrail" / "logins"
