"""The token of a session is renewed while it is used: once for all who need it, and for the same person."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.console.renewing import renewed
from handrail.console.web.console import now
from handrail.console.web.sessions import LONGEST, Renewal, Session
from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, another_browser, browsing
from tests.support.mesh import publish
from tests.support.provider import installed_provider
from tests.support.provider_house import Visitor, house, visiting
from tests.support.scripted_provider import TOKEN, Answer, ScriptedProvider, scripted_provider
from tests.support.waiting import until

REFUSAL = Answer(json.dumps({"error": "invalid_grant"}).encode(), 400)


@pytest.fixture
def provider(api: Api) -> Iterator[ScriptedProvider]:
    """A provider that gives Vera's tokens, and one to renew them."""
    with scripted_provider() as provider:
        provider.access_token, provider.refresh_token = api.token("vera", "viewer"), "first"
        yield provider


@pytest.fixture
async def vera(api: Api, provider: ScriptedProvider) -> AsyncIterator[Browser]:
    """A browser in which Vera signed in at this provider."""
    async with browsing(api, openid=provider.client(timeout=timedelta(seconds=30))) as browser:
        assert (await provider.sign_in(browser)).status_code == 303
        yield browser


def due(browser: Browser) -> tuple[Session, Renewal]:
    """The session, of which the token is due to be renewed."""
    session, renewal = Visitor(browser).session()
    renewal.due = session.started
    return session, renewal


async def told(browser: Browser) -> str:
    """What the sign-in page says, to which the browser is led."""
    answer = await browser.get("/account")
    assert answer.status_code == 303
    return await browser.page(answer.headers["location"])


async def test_a_token_is_renewed_before_it_ends_by_whatever_asks_first(
    vera: Browser, provider: ScriptedProvider, api: Api
) -> None:
    session, renewal = due(vera)
    provider.access_token, provider.refresh_token = api.token("vera", "viewer"), "second"
    assert (await vera.get("/account", **{"handrail-live": "1"})).status_code == 200
    assert (session.token, renewal.refresh_token) == (provider.access_token, "second")
    assert session.expires == session.started + LONGEST
    asked = len(provider.asked)
    await vera.page("/account")
    assert len(provider.asked) == asked


async def test_all_who_need_a_new_token_wait_for_one(vera: Browser, provider: ScriptedProvider) -> None:
    due(vera)
    before = provider.asked.count(TOKEN)
    answers = await asyncio.gather(*(vera.get("/account") for _ in range(20)))
    assert {each.status_code for each in answers} == {200}
    assert provider.asked.count(TOKEN) == before + 1


async def test_a_provider_that_sends_no_new_refresh_token_leaves_the_old_one(
    vera: Browser, provider: ScriptedProvider
) -> None:
    session, renewal = due(vera)
    provider.refresh_token = ""
    await vera.page("/account")
    assert renewal.due > session.started
    assert renewal.refresh_token == "first"


async def test_a_browser_that_goes_away_does_not_lose_the_new_tokens(
    vera: Browser, provider: ScriptedProvider, api: Api
) -> None:
    session, renewal = due(vera)
    asked, go, right = threading.Event(), threading.Event(), provider.server.page.wait

    def held() -> None:
        asked.set()
        assert go.wait(60)
        right()

    provider.server.page.wait = held
    provider.access_token, provider.refresh_token = api.token("vera", "viewer"), "second"
    request = asyncio.create_task(vera.get("/account"))
    assert await asyncio.to_thread(asked.wait, 60)
    request.cancel()
    await asyncio.wait([request])
    go.set()
    await vera.page("/account")
    assert (session.token, renewal.refresh_token) == (provider.access_token, "second")
    assert provider.asked.count(TOKEN) == 2


async def test_a_session_ends_with_a_sentence_when_the_provider_refuses(
    vera: Browser, provider: ScriptedProvider
) -> None:
    session, _ = due(vera)
    provider.answers[TOKEN] = REFUSAL
    # An open page is told, and so is the person who looks afterwards.
    assert (await vera.get("/flows", **{"handrail-live": "1"})).status_code == 303
    assert session.ended.is_set()
    assert "Your session is over. 127.0.0.1 refuses: invalid_grant. Sign in again." in await told(vera)
    async with another_browser(vera) as other:
        assert "Your session is over" not in await other.page("/sign-in")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_that_can_not_answer_does_not_end_a_session(
    vera: Browser, provider: ScriptedProvider, status: int
) -> None:
    session, renewal = due(vera)
    provider.answers[TOKEN] = Answer(b'{"error": "temporarily_unavailable"}', status)
    await vera.page("/account")
    asked = len(provider.asked)
    await vera.page("/account")
    assert len(provider.asked) == asked, "a provider that is down is left alone for a while"
    renewal.token_expires = session.started
    answer = await vera.get("/account")
    assert (answer.status_code, "127.0.0.1 gives no usable answer" in answer.text) == (503, True)
    assert (await vera.get("/static/console.css")).status_code == 200
    del provider.answers[TOKEN]
    renewal.due = session.started
    assert "vera" in await vera.page("/account")


@pytest.mark.parametrize("path", ["/account", "/flows", "/live/x"])
async def test_a_session_does_not_go_on_with_the_token_of_another_person(
    vera: Browser, provider: ScriptedProvider, api: Api, path: str
) -> None:
    due(vera)
    provider.access_token = api.token("olga", "operator")
    assert (await vera.get(path)).status_code in (303, 401)
    assert "renewed the token of another person" in await told(vera)


async def test_a_session_ends_when_the_coordinator_refuses_the_new_token(
    vera: Browser, provider: ScriptedProvider
) -> None:
    due(vera)
    provider.access_token = "e30.e30.e30"
    assert "The coordinator refuses your renewed token" in await told(vera)


@pytest.mark.parametrize("answer", [Answer(b"", 200), Answer(b"", 503)], ids=["revokes", "is down"])
async def test_who_signs_out_everywhere_is_out_whatever_the_provider_says(
    vera: Browser, provider: ScriptedProvider, answer: Answer
) -> None:
    provider.answers["/revoke"] = answer
    async with another_browser(vera) as second:
        await provider.sign_in(second)
        out = await vera.post("/sign-out", form_token=await vera.form_token(), everywhere="yes")
        assert out.status_code == 303
        await until(lambda: provider.asked.count("/revoke") == 2)
        assert (await second.get("/account")).status_code == 303


async def test_every_session_that_is_signed_out_has_its_token_revoked(
    vera: Browser, provider: ScriptedProvider
) -> None:
    async with AsyncExitStack() as browsers:
        for _ in range(19):
            await provider.sign_in(await browsers.enter_async_context(another_browser(vera)))
        await vera.post("/sign-out", form_token=await vera.form_token(), everywhere="yes")
    assert await until(lambda: provider.asked.count("/revoke") == 20)


async def test_who_signs_out_while_a_token_is_renewed_leaves_no_token_behind(
    vera: Browser, provider: ScriptedProvider
) -> None:
    form_token = await vera.form_token()
    session, renewal = due(vera)
    asked, go, right = threading.Event(), threading.Event(), provider.server.page.wait

    def held() -> None:
        if provider.asked[-1] == TOKEN:
            asked.set()
            assert go.wait(60)
        right()

    provider.server.page.wait = held
    provider.refresh_token = "second"
    request = asyncio.create_task(vera.get("/account"))
    assert await asyncio.to_thread(asked.wait, 60)
    assert (await vera.post("/sign-out", form_token=form_token)).status_code == 303
    await until(lambda: provider.asked.count("/revoke") == 1)
    provider.server.asked.append(TOKEN)
    go.set()
    assert (await request).status_code == 303
    assert session.ended.is_set()
    assert renewal.refresh_token == "second"
    await until(lambda: provider.asked.count("/revoke") == 2)


async def test_a_session_without_a_refresh_token_ends_with_its_token(api: Api, provider: ScriptedProvider) -> None:
    provider.access_token, provider.refresh_token = api.token("vera", lifetime=timedelta(minutes=5)), ""
    async with browsing(api, openid=provider.client()) as browser:
        await provider.sign_in(browser)
        [session] = browser.console.sessions._sessions.values()
        assert session.renewal is None
        assert session.expires - session.started <= timedelta(minutes=5)


async def test_a_session_that_is_over_is_not_renewed(vera: Browser, provider: ScriptedProvider) -> None:
    due(vera)
    [key] = vera.console.sessions._sessions
    asked = len(provider.asked)
    assert await renewed(vera.console, key, now() + LONGEST) == ""
    assert len(provider.asked) == asked


async def test_an_open_page_follows_on_with_the_new_token(api: Api, bus: NatsBus, provider: ScriptedProvider) -> None:
    await api.replica.catalog.put(flows.stored(flows.template()))
    await publish(bus, flows.start())
    provider.access_token = api.token("vera", "viewer", lifetime=timedelta(seconds=2))
    async with browsing(api, openid=provider.client()) as browser:
        await provider.sign_in(browser)
        _, renewal = Visitor(browser).session()
        # The console's clock is behind: it takes the token for good when the coordinator no longer does.
        renewal.due = renewal.token_expires = now() + timedelta(hours=1)
        said = await browser.get(f"/live/{flows.FLOW_ID}")
    assert said.text.endswith("event: again\ndata:\n\n")


@pytest.mark.timeout(600)
async def test_an_ordinary_provider_renews_a_short_token_again_and_again(
    bus: NatsBus, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A token that is good for 20 s would end soon: each page renews it.
    installation = installed_provider(tmp_path_factory.mktemp("provider"))
    async with house(bus, installation, tmp_path, TOKEN_SECONDS="20") as parts, visiting(*parts) as visitor:
        await visitor.sign_in("olga")
        session, renewal = visitor.session()
        known = {(session.token, renewal.refresh_token)}
        for _ in range(3):
            await asyncio.gather(*(visitor.browser.page("/account") for _ in range(5)))
            known.add((session.token, renewal.refresh_token))
        assert len(known) == 4
