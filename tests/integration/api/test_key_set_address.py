"""A provider's key set at an address: who may answer, how often it is asked, and how long an answer counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.coordinator.api.tokens import TokenVerifier
from handrail.coordinator.api.tokens.key_address import KeyAddress, KeysUnavailable
from handrail.coordinator.api.tokens.keys import ALGORITHMS
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.errors import HandrailError
from handrail.mesh.https import FetchError, ask, why_unsafe
from tests.support.tokens import jwk, key_set, pem, private_key, signed
from tests.support.waiting import eventually, until
from tests.support.web_server import WebServer, web_server

ONE, OTHER = private_key("ES256"), private_key("RS256")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        server.page.body = key_set(jwk(ONE, "one"))
        yield server


def address(server: WebServer, clock: Clock) -> KeyAddress:
    """The server's key set: fresh for a minute, good for an hour, asked for at most every ten seconds."""
    return KeyAddress(
        server.url, ALGORITHMS, refresh=MINUTE, stale_after=HOUR, cooldown=timedelta(seconds=10), clock=clock
    )


def kids(keys: Any) -> list[str]:
    return [key.kid for key in keys]


async def test_the_set_is_fetched_once_and_by_all_callers_together(server: WebServer) -> None:
    keys = address(server, Clock())
    answers = await asyncio.gather(*(keys.keys() for _ in range(20)))
    assert {each.kid for answer in answers for each in answer} == {"one"}
    assert kids(await keys.keys()) == ["one"]
    assert len(server.asked) == 1


async def test_it_is_fetched_again_when_it_is_no_longer_fresh(server: WebServer) -> None:
    clock = Clock()
    keys = address(server, clock)
    await keys.keys()
    server.page.body = key_set(jwk(OTHER, "other"))
    clock.now += 61
    assert kids(await keys.keys()) == ["one"]  # nobody waits for what is fetched in the background
    await eventually(keys.keys, lambda found: kids(found) == ["other"])
    assert (kids(await keys.keys()), len(server.asked), keys.generation) == (["other"], 2, 2)


async def test_an_unknown_key_asks_again_but_only_once_within_the_cooldown(server: WebServer) -> None:
    clock = Clock()
    keys = address(server, clock)
    await keys.keys()
    server.page.body = key_set(jwk(ONE, "one"), jwk(OTHER, "other"))
    assert kids(await keys.keys_anew()) == ["one"]
    clock.now += 10
    assert kids(await keys.keys_anew()) == ["one", "other"]
    for _ in range(50):
        await keys.keys_anew()
    assert len(server.asked) == 2


BROKEN: dict[str, dict[str, Any]] = {
    "an error": {"status": 503},
    "a redirect": {"status": 302, "headers": {"Location": "/other"}},
    "what is no key set": {"body": b"<html>"},
    "a key set without a usable key": {"body": b'{"keys": []}'},
    "too much": {"body": b" " * 300_000},
}


@pytest.mark.parametrize("case", BROKEN)
async def test_the_last_set_counts_while_the_address_fails_and_no_longer_than_allowed(
    server: WebServer, case: str
) -> None:
    clock = Clock()
    keys = address(server, clock)
    await keys.keys()
    for name, value in BROKEN[case].items():
        setattr(server.page, name, value)
    clock.now += 3600
    assert kids(await keys.keys()) == ["one"]
    clock.now += 11
    with pytest.raises(KeysUnavailable, match="/keys"):
        await keys.keys()
    assert set(server.asked) == {"/keys"}


async def test_without_any_answer_no_token_is_verified_and_each_call_says_so_at_once(server: WebServer) -> None:
    server.page.status = 500
    verifier = TokenVerifier(TokenSettings(key_set=server.url))
    await verifier.keys.prepare()
    for _ in range(3):
        with pytest.raises(HandrailError, match="can't verify tokens for now"):
            await verifier.verify(signed(ONE, {"kid": "one"}))
    assert len(server.asked) == 1


async def test_keys_of_files_count_although_the_address_does_not_answer(server: WebServer, tmp_path: Path) -> None:
    server.page.status = 500
    (tmp_path / "own.pem").write_bytes(pem(OTHER))
    verifier = TokenVerifier(TokenSettings(key_set=server.url), [tmp_path / "own.pem"])
    assert (await verifier.verify(signed(OTHER))).caller.subject == "olga"


async def test_a_rotated_key_is_found_by_the_first_token_that_names_it(server: WebServer) -> None:
    verifier = TokenVerifier(TokenSettings(key_set=server.url, cooldown=timedelta()))
    assert (await verifier.verify(signed(ONE, {"kid": "one"}))).caller.subject == "olga"
    server.page.body = key_set(jwk(OTHER, "other"))
    assert (await verifier.verify(signed(OTHER, {"kid": "other"}))).caller.subject == "olga"
    with pytest.raises(HandrailError, match="not signed with the key that it names"):
        await verifier.verify(signed(ONE, {"kid": "one"}))


async def test_the_loop_goes_on_while_the_address_keeps_it_waiting(server: WebServer) -> None:
    gate = threading.Event()
    server.page.wait = gate.wait
    asking = asyncio.create_task(address(server, Clock()).keys())
    await until(lambda: bool(server.asked))
    assert not asking.done()
    gate.set()
    assert kids(await asking) == ["one"]


def test_an_answer_that_takes_too_long_is_none(server: WebServer) -> None:
    gate = threading.Event()
    server.page.wait = gate.wait
    with pytest.raises(FetchError, match="takes too long to answer"):
        ask(server.url, within=timedelta(milliseconds=200))
    gate.set()


async def test_only_a_server_whose_certificate_can_be_verified_is_believed(tmp_path: Path) -> None:
    with web_server(tmp_path / "ours") as server, web_server(tmp_path / "theirs") as other:
        for each in (server, other):
            each.page.body = key_set(jwk(ONE, "one"))
        trusting = TokenVerifier(TokenSettings(key_set=server.url, key_set_ca=server.ca))
        assert (await trusting.verify(signed(ONE, {"kid": "one"}))).caller.subject == "olga"
        for url, ca in ((server.url, None), (other.url, server.ca), (server.url, other.ca)):
            with pytest.raises(FetchError, match="certificate"):
                ask(url, ca=ca)


@pytest.mark.parametrize(
    "url",
    ["http://example.com/keys", "http://10.0.0.1/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "https:///keys",
     "https://olga:secret@example.com/", "https://exa mple.com/", "https://[::1", "http://127.0.0.1.example.com/",
     "https://host:port/", "https://host/\n"],
)  # fmt: skip
def test_an_address_that_is_not_safe_to_ask_is_refused(url: str) -> None:
    assert why_unsafe(url)
    with pytest.raises(FetchError, match="is not asked"):
        ask(url)


@pytest.mark.parametrize(
    "url", ["https://example.com/keys", "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]/"]
)
def test_https_is_safe_to_ask_and_this_machine_without(url: str) -> None:
    assert why_unsafe(url) == ""
