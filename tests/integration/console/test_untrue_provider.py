"""An identity provider that is down, slow, broken or lying: nobody gets in by it, and one sentence says why."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from handrail.console.openid.provider import Provider, ProviderError
from handrail.console.web import throttle
from handrail.mesh.https import LARGEST
from tests.support.api import Api
from tests.support.console import Browser, browsing
from tests.support.scripted_provider import DISCOVERY, KEYS, TOKEN, Answer, ScriptedProvider, scripted_provider
from tests.support.tokens import jwk, key_set, pem, private_key


@pytest.fixture
def provider(api: Api) -> Iterator[ScriptedProvider]:
    """A provider that gives Vera's token."""
    with scripted_provider() as provider:
        provider.access_token = api.token("vera", "viewer")
        yield provider


@pytest.fixture
async def browser(api: Api, provider: ScriptedProvider) -> AsyncIterator[Browser]:
    """A browser at a console where people sign in at this provider."""
    async with browsing(api, openid=provider.client(timeout=timedelta(seconds=30))) as browser:
        yield browser


async def is_out(browser: Browser) -> bool:
    """Whether nobody is signed in."""
    return (await browser.get("/account")).status_code == 303


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_provider_that_answers_rightly_lets_a_person_in(
    browser: Browser, provider: ScriptedProvider, algorithm: str
) -> None:
    provider.key = private_key(algorithm)
    provider.claims = {"iat": timedelta(seconds=30), "exp": timedelta(minutes=10)}
    assert (await provider.sign_in(browser)).status_code == 303
    assert "vera" in await browser.page("/account")


WRONG_CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "of another sign-in": ({"nonce": "another"}, "not for this sign-in"),
    "of no sign-in": ({"nonce": None}, "not for this sign-in"),
    "for another client": ({"aud": "another"}, "not for this sign-in"),
    "for another client, by this one": ({"aud": "another", "azp": "handrail-console"}, "not for this sign-in"),
    "for many, by another": ({"aud": ["handrail-console", "another"], "azp": "another"}, "not for this sign-in"),
    "of another issuer": ({"iss": "https://id.example.com"}, "not for this sign-in"),
    "of another access token": ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "not for this sign-in"),
    "expired": ({"iat": -timedelta(seconds=700), "exp": -timedelta(seconds=90)}, "differ by more than a minute"),
    "from the future": ({"iat": timedelta(minutes=10), "exp": timedelta(minutes=15)}, "differ by more than a minute"),
    "without an end": ({"exp": None}, "not for this sign-in"),
    "with odd times": ({"exp": "never"}, "ID token"),
}


@pytest.mark.parametrize("case", WRONG_CLAIMS)
async def test_an_id_token_with_wrong_claims_lets_nobody_in(
    browser: Browser, provider: ScriptedProvider, case: str
) -> None:
    provider.claims, why = WRONG_CLAIMS[case]
    answer = await provider.sign_in(browser)
    assert (answer.status_code, why in answer.text) == (502, True), answer.text
    assert await is_out(browser)


@pytest.mark.parametrize(
    "case", ["no signature", "another key", "a key that all know", "no token", "three words", "a deep one"]
)
async def test_an_id_token_that_the_provider_did_not_sign_lets_nobody_in(
    browser: Browser, provider: ScriptedProvider, case: str
) -> None:
    begun = await provider.begin(browser)
    provider.nonce = parse_qs(urlsplit(begun).query)["nonce"][0]
    claims = jwt.decode(provider.signed(), options={"verify_signature": False})
    provider.answers[KEYS] = Answer(key_set(jwk(provider.key, "first")))
    forged: dict[str, Callable[[], str]] = {
        "no signature": lambda: forge(claims, "none", b""),
        "another key": lambda: jwt.encode(claims, private_key("ES256"), "ES256", headers={"kid": "first"}),
        "a key that all know": lambda: forge(claims, "HS256", pem(provider.key)),
        "no token": lambda: "",
        "three words": lambda: "e30.e30.e30",
        "a deep one": lambda: f"{encoded(b'[' * 10_000)}.e30.e30",
    }
    provider.id_token = forged[case]()
    answer = await provider.sign_in(browser, begun=begun)
    assert (answer.status_code, "no ID token that is signed with its keys" in answer.text) == (502, True), answer.text
    assert await is_out(browser)


def forge(claims: dict[str, Any], algorithm: str, secret: bytes) -> str:
    """A token that names its own algorithm; with HS256 the public key of the provider is taken for a secret."""
    parts = ({"alg": algorithm, "kid": "first"}, claims)
    text = ".".join(encoded(json.dumps(each).encode()) for each in parts)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256')) if secret else ''}"


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


BROKEN = {
    "an error": Answer(b"oops", 500),
    "a page": Answer(b"<h1>It works!</h1>"),
    "a list": Answer(b"[]"),
    "too much": Answer(b" " * (LARGEST + 1)),
    "a redirect": Answer(b"", 302, {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, KEYS])
@pytest.mark.parametrize("case", BROKEN)
async def test_an_answer_that_makes_no_sense_is_none(
    browser: Browser, provider: ScriptedProvider, path: str, case: str
) -> None:
    provider.answers[path] = BROKEN[case]
    answer = await browser.get("/sign-in/begin") if path == DISCOVERY else await provider.sign_in(browser)
    assert answer.status_code == (503 if path == DISCOVERY else 502)
    assert "127.0.0.1 gives no usable answer" in answer.text
    assert "/elsewhere" not in provider.asked
    assert await is_out(browser)


UNTRUE: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": (
        {"issuer": "https://id.example.com/\x1b[31m"},
        "it says that it is https://id.example.com/\\x1b[31m",
    ),
    "no encryption": ({"token_endpoint": "http://id.example.com/token"}, "token_endpoint can&#39;t be used"),
    "a file": ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri can&#39;t be used"),
    "a script": ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint can&#39;t be used"),
    "a number": ({"token_endpoint": 7}, "token_endpoint can&#39;t be used"),
    "nothing": ({"jwks_uri": None}, "jwks_uri can&#39;t be used"),
}


@pytest.mark.parametrize("case", UNTRUE)
async def test_a_provider_that_describes_itself_wrongly_is_not_used(
    browser: Browser, provider: ScriptedProvider, case: str
) -> None:
    provider.metadata, why = UNTRUE[case]
    answer = await browser.get("/sign-in/begin")
    assert (answer.status_code, why in answer.text) == (503, True), answer.text
    assert provider.asked == [DISCOVERY]


async def test_a_provider_that_is_down_is_asked_again_by_the_next_person(api: Api) -> None:
    with scripted_provider() as provider:
        client = provider.client()
    async with browsing(api, openid=client) as browser:
        for _ in range(2):
            answer = await browser.get("/sign-in/begin")
            assert (answer.status_code, "does not answer" in answer.text) == (503, True)
        assert (await browser.sign_in(api.token("vera", "viewer"))).status_code == 303


async def test_a_provider_that_takes_too_long_is_given_up(api: Api, provider: ScriptedProvider) -> None:
    over = threading.Event()
    try:
        async with browsing(api, openid=provider.client(timeout=timedelta(milliseconds=300))) as browser:
            begun = await provider.begin(browser)
            provider.server.page.wait = lambda: over.wait(60)
            answer = await provider.sign_in(browser, begun=begun)
            assert (answer.status_code, "takes too long" in answer.text) == (502, True), answer.text
    finally:
        over.set()


async def test_all_who_wait_for_the_provider_ask_it_once(api: Api, provider: ScriptedProvider) -> None:
    asking = Provider(provider.client())
    await asyncio.gather(*(asking.metadata() for _ in range(100)))
    assert provider.asked == [DISCOVERY]
    provider.answers[TOKEN] = Answer(b"{}", 500)
    failed = await asyncio.gather(*(asking.token({}) for _ in range(100)), return_exceptions=True)
    assert all(isinstance(each, ProviderError) for each in failed)
    assert sum("at once" in str(each) for each in failed) == 100 - len(
        [each for each in provider.asked if each == TOKEN]
    )
    assert len(provider.asked) < 50


async def test_a_refusal_is_shown_short_and_as_text(browser: Browser, provider: ScriptedProvider) -> None:
    words = "<script>alert(1)</script>\x1b[31m\u202e" + "x" * 1_000
    answer = await provider.sign_in(browser, error="access_denied", error_description=words)
    assert answer.status_code == 403
    assert "refuses: &lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202exxx" in answer.text
    assert "x" * 200 not in answer.text
    provider.answers[TOKEN] = Answer(json.dumps({"error": "invalid_grant", "error_description": 7}).encode(), 400)
    answer = await provider.sign_in(browser)
    assert (answer.status_code, "refuses: invalid_grant." in answer.text) == (403, True)


@pytest.mark.parametrize("iss", ["https://id.example.com", ""])
async def test_the_answer_of_another_provider_is_not_taken_to_this_one(
    browser: Browser, provider: ScriptedProvider, iss: str
) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    answer = await provider.sign_in(browser, code="a code", iss=iss)
    assert (answer.status_code, "is not from 127.0.0.1" in answer.text) == (502, True)
    assert TOKEN not in provider.asked


CALLBACK = "/sign-in/callback"
BAD_ANSWERS = {
    "of no sign-in": {},
    "with another state": {"state": "guessed", "code": "a code"},
    "of another issuer": {"iss": "https://id.example.com", "code": "a code"},
    "without a code": {"session_state": "1"},
    "with a code that is none": {"code": "x" * 5_000},
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_whoever_brings_bad_answers_again_and_again_has_to_wait(
    browser: Browser, provider: ScriptedProvider, case: str
) -> None:
    bad = BAD_ANSWERS[case]
    for _ in range(throttle.MOST_FAILURES):
        if case == "of no sign-in" or "state" in bad:
            answer = await browser.client.get(CALLBACK, params=bad)
        else:
            answer = await provider.sign_in(browser, **bad)
        assert answer.status_code in (400, 502), answer.text
    assert (await provider.sign_in(browser)).status_code == 429
    assert await is_out(browser)
    assert TOKEN not in provider.asked


async def test_a_provider_that_fails_makes_nobody_wait(browser: Browser, provider: ScriptedProvider) -> None:
    provider.answers[TOKEN] = Answer(b"oops", 500)
    for _ in range(throttle.MOST_FAILURES):
        assert (await provider.sign_in(browser)).status_code == 502
    del provider.answers[TOKEN]
    assert (await provider.sign_in(browser)).status_code == 303


async def test_images_on_a_strangers_page_make_nobody_wait(browser: Browser, provider: ScriptedProvider) -> None:
    for _ in range(throttle.MOST_FAILURES):
        answer = await browser.get(f"{CALLBACK}?state=guessed", **{"sec-fetch-dest": "image"})
        assert answer.status_code == 400
    begun = await provider.begin(browser)
    framed = await browser.get(f"{CALLBACK}?{urlsplit(begun).query}&code=c", **{"sec-fetch-dest": "iframe"})
    assert (framed.status_code, TOKEN in provider.asked) == (400, False)
    assert (await provider.sign_in(browser)).status_code == 303


async def test_a_token_that_the_coordinator_refuses_begins_nothing(
    browser: Browser, provider: ScriptedProvider
) -> None:
    provider.access_token = "e30.e30.e30"
    answer = await provider.sign_in(browser)
    assert (answer.status_code, "The coordinator refuses this token." in answer.text) == (403, True)
    assert await is_out(browser)


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"])
async def test_a_provider_by_tls_leads_to_nothing_without_it(tmp_path: Path, name: str) -> None:
    with scripted_provider(tmp_path) as provider:
        provider.metadata = {name: "http://127.0.0.1:7070/"}
        with pytest.raises(ProviderError, match=f"its {name} can't be used: it must begin with https://"):
            await Provider(provider.client()).metadata()


async def test_a_provider_with_an_authority_of_its_own_is_asked_by_tls(tmp_path: Path) -> None:
    with scripted_provider(tmp_path) as provider:
        assert (await Provider(provider.client()).metadata()).token == f"{provider.issuer}/token"
        with pytest.raises(ProviderError, match="certificate verify failed"):
            await Provider(provider.client(ca=None)).metadata()
