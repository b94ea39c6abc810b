"""Signing in at the console at an ordinary identity provider: who gets in, how long, and what an attacker can't do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from handrail.console.openid.provider import ProviderRefused
from handrail.console.openid.tokens import refresh
from handrail.console.web import throttle
from handrail.mesh.bus import NatsBus
from tests.support.api import Api
from tests.support.console import another_browser, browsing
from tests.support.provider import IdentityProvider, installed_provider
from tests.support.provider_house import CLIENTS, Visitor, house, visiting
from tests.support.waiting import PATIENCE

# What npm has to fetch may take its time: that is no fault of ours.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_provider(tmp_path_factory.mktemp("provider"))


@pytest.fixture
async def parts(bus: NatsBus, installation: Path, tmp_path: Path) -> AsyncIterator[tuple[Api, IdentityProvider]]:
    """A coordinator, and the provider whose tokens it takes."""
    async with house(bus, installation, tmp_path) as parts:
        yield parts


@pytest.fixture
async def vera(parts: tuple[Api, IdentityProvider]) -> AsyncIterator[Visitor]:
    """Vera's browser; nobody is signed in."""
    async with visiting(*parts) as visitor:
        yield visitor


@pytest.fixture
async def mallory(vera: Visitor) -> AsyncIterator[Visitor]:
    """Mallory's browser, at the same console."""
    async with another_browser(vera.browser) as browser:
        yield Visitor(browser)


def changed(path: str, **changes: str) -> str:
    """A path with other values in its query."""
    found = urlsplit(path)
    return f"{found.path}?{urlencode({**dict(parse_qsl(found.query)), **changes})}"


async def is_out(visitor: Visitor) -> bool:
    """Whether nobody is signed in in this browser."""
    return (await visitor.browser.get("/account")).status_code == 303


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_person_signs_in_at_the_provider_and_comes_back_to_the_page(
    parts: tuple[Api, IdentityProvider], client: str
) -> None:
    async with visiting(*parts, client) as visitor:
        assert "Sign in with 127.0.0.1" in await visitor.browser.page("/sign-in")
        done = await visitor.sign_in("olga", back="/flows?q=a%3Db&scan=yes")
        assert (done.status_code, done.headers["location"]) == (303, "/flows?q=a%3Db&scan=yes"), done.text
        page = await visitor.browser.page("/account")
        assert "operator" in page
        session, renewal = visitor.session()
        assert session.subject == "olga"
        assert not [each for each in (session.token, renewal.refresh_token) if each in page]


async def test_what_leads_to_the_provider_is_for_this_browser_and_this_once(vera: Visitor) -> None:
    answers = [await vera.browser.get("/sign-in/begin") for _ in range(2)]
    asked = [parse_qs(urlsplit(each.headers["location"]).query) for each in answers]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
    assert asked[0]["code_challenge_method"] == ["S256"]
    assert asked[0]["redirect_uri"] == ["http://127.0.0.1:7080/sign-in/callback"]
    for answer in answers:
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        assert not [each for values in asked for each in values["state"] + values["nonce"] if each in cookie]


async def test_beyond_this_machine_people_come_back_by_tls_to_the_name_that_they_used(
    parts: tuple[Api, IdentityProvider],
) -> None:
    async with visiting(*parts, hosts=frozenset({"console.example.com"})) as visitor:
        answer = await visitor.browser.get("/sign-in/begin", host="console.example.com")
        asked = parse_qs(urlsplit(answer.headers["location"]).query)
        assert asked["redirect_uri"] == ["https://console.example.com/sign-in/callback"]
        assert answer.headers["set-cookie"].startswith("__Host-handrail_sign_in=")
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["begin", "callback?state=a&code=b"])
async def test_a_host_name_that_is_not_the_consoles_leads_to_no_provider(vera: Visitor, path: str) -> None:
    for host in ("evil.example", "evil.example:7080", "127.0.0.1:7080@evil.example", "127.0.0.1.evil.example"):
        answer = await vera.browser.get(f"/sign-in/{path}", host=host)
        assert (answer.status_code, "set-cookie" in answer.headers) == (400, False), host


async def test_a_person_who_denies_is_not_signed_in(vera: Visitor) -> None:
    back = await vera.come_back(await vera.begin(), "olga", deny=True)
    answer = await vera.browser.get(back)
    assert (answer.status_code, "127.0.0.1 refuses: " in answer.text) == (403, True)
    assert await is_out(vera)


async def test_the_answer_that_a_stranger_got_signs_nobody_in(vera: Visitor, mallory: Visitor) -> None:
    planted = await mallory.come_back(await mallory.begin(), "olga")
    answer = await vera.browser.get(planted)
    assert (answer.status_code, "not begun in this browser" in answer.text) == (400, True)
    link = await vera.begin()
    answer = await vera.browser.get(planted)
    assert (answer.status_code, "the answer to another sign-in" in answer.text) == (400, True)
    answer = await vera.browser.get("/sign-in/callback?state=guessed&error=e&error_description=call+0900")
    assert (answer.status_code, "0900" in answer.text) == (400, False)
    assert await is_out(vera)
    # What Vera began goes on: a stranger's link does not end it.
    assert (await vera.browser.get(await vera.come_back(link, "anna"))).status_code == 303


async def test_a_code_that_a_stranger_got_is_of_no_use_in_an_answer_of_ones_own(
    vera: Visitor, mallory: Visitor
) -> None:
    code = dict(parse_qsl(urlsplit(await mallory.come_back(await mallory.begin(), "olga")).query))["code"]
    own = await vera.come_back(await vera.begin(), "anna")
    answer = await vera.browser.get(changed(own, code=code))
    assert (answer.status_code, "127.0.0.1 refuses: " in answer.text) == (403, True)
    assert await is_out(vera)


async def test_an_answer_counts_once(vera: Visitor, mallory: Visitor) -> None:
    link = await vera.begin()
    cookies = dict(vera.browser.client.cookies)
    back = await vera.come_back(link, "olga")
    assert (await vera.browser.get(back)).status_code == 303
    assert "handrail_sign_in" not in vera.browser.client.cookies
    # A thief has the address and the cookie, too.
    mallory.browser.client.cookies.update(cookies)
    answer = await mallory.browser.get(back)
    assert (answer.status_code, "counts once" in answer.text) == (400, True)
    assert await is_out(mallory)
    # The provider was not asked: it would end what it gave for the code.
    session, renewal = vera.session()
    renewal.due = session.started
    assert "olga" in await vera.browser.page("/account")
    assert renewal.due > session.started


async def test_going_back_to_an_answer_that_counted_leads_to_the_start(vera: Visitor) -> None:
    back = await vera.come_back(await vera.begin(), "olga")
    assert (await vera.browser.get(back)).headers["location"] == "/"
    again = await vera.browser.get(back)
    assert (again.status_code, again.headers["location"]) == (303, "/")


async def test_the_answer_of_another_provider_is_not_taken_to_this_one(vera: Visitor) -> None:
    own = await vera.come_back(await vera.begin(), "olga")
    answer = await vera.browser.get(changed(own, iss="https://id.example.com"))
    assert (answer.status_code, "is not from 127.0.0.1" in answer.text) == (502, True)
    assert await is_out(vera)


async def test_a_session_that_the_browser_was_given_does_not_become_a_persons(vera: Visitor, mallory: Visitor) -> None:
    await mallory.sign_in("mallory")
    planted = mallory.browser.client.cookies["handrail_session"]
    back = await vera.come_back(await vera.begin(), "olga")
    vera.browser.client.cookies.set("handrail_session", planted, domain="127.0.0.1", path="/")
    assert (await vera.browser.get(back)).status_code == 303
    assert await is_out(mallory)


@pytest.mark.parametrize("back", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_signing_in_at_the_provider_leads_to_no_other_site(vera: Visitor, back: str) -> None:
    assert (await vera.sign_in("olga", back=back)).headers["location"] == "/"


async def test_a_flood_of_begun_sign_ins_leaves_nothing_in_the_console(vera: Visitor, mallory: Visitor) -> None:
    link = await vera.begin()
    console = vera.browser.console
    for _ in range(500):
        await mallory.begin()
    assert (len(console.seal._ended), len(console.sessions._sessions)) == (0, 0)
    assert (await vera.browser.get(await vera.come_back(link, "olga"))).status_code == 303


async def test_whoever_brings_bad_codes_again_and_again_has_to_wait(vera: Visitor, mallory: Visitor) -> None:
    own = await vera.come_back(await vera.begin(), "olga")
    for _ in range(throttle.MOST_FAILURES):
        state = parse_qs(urlsplit(await mallory.begin()).query)["state"][0]
        assert (await mallory.browser.get(changed(own, code="guessed", state=state))).status_code == 403
    assert (await vera.browser.get(own)).status_code == 429


async def test_signing_out_ends_the_session_and_offers_to_sign_out_at_the_provider(
    vera: Visitor, parts: tuple[Api, IdentityProvider]
) -> None:
    await vera.sign_in("olga")
    _, renewal = vera.session()
    out = await vera.browser.post("/sign-out", form_token=await vera.browser.form_token())
    page = await vera.browser.page(out.headers["location"])
    assert "You are signed out of this console." in page
    assert f'href="{parts[1].issuer}/session/end?client_id=handrail-console"' in page
    assert await is_out(vera)
    assert vera.browser.console.provider is not None
    await vera.browser.console.revocations.finish(timedelta(seconds=PATIENCE))
    with pytest.raises(ProviderRefused):
        await refresh(vera.browser.console.provider, renewal.refresh_token)


async def test_a_console_without_pasted_tokens_takes_none(parts: tuple[Api, IdentityProvider]) -> None:
    async with visiting(*parts, pasted=False) as visitor:
        assert "<textarea" not in await visitor.browser.page("/sign-in")
        assert (await visitor.browser.sign_in(parts[0].token("vera", "viewer"))).status_code == 403
        assert (await visitor.sign_in("olga")).status_code == 303


async def test_a_console_without_a_provider_leads_to_none(parts: tuple[Api, IdentityProvider]) -> None:
    async with browsing(parts[0]) as browser:
        assert "Sign in with" not in await browser.page("/sign-in")
        for path in ("begin", "callback?state=a&code=b"):
            assert (await browser.get(f"/sign-in/{path}")).status_code == 404
