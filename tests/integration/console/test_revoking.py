"""However a session ends, the provider revokes its refresh token; and so for what was given to no session."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from handrail.console import ending
from handrail.console.openid.revocations import MOST_AT_ONCE
from handrail.console.web import sessions
from tests.support.api import Api
from tests.support.console import Browser, another_browser, browsing
from tests.support.provider_house import Visitor
from tests.support.scripted_provider import Answer, ScriptedProvider, scripted_provider
from tests.support.waiting import PATIENCE, until

REVOKE = "/revoke"


@pytest.fixture
def provider(api: Api) -> Iterator[ScriptedProvider]:
    """A provider that gives Vera's tokens."""
    with scripted_provider() as provider:
        provider.access_token, provider.refresh_token = api.token("vera", "viewer"), "first"
        yield provider


@pytest.fixture
async def vera(api: Api, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Browser]:
    """A browser in which Vera signed in at this provider. Sessions that are over are looked for all the time."""
    monkeypatch.setattr(ending, "EVERY", timedelta(milliseconds=10))
    async with browsing(api, openid=provider.client(timeout=timedelta(seconds=PATIENCE))) as browser:
        assert (await provider.sign_in(browser)).status_code == 303
        yield browser


async def revoked(provider: ScriptedProvider, number: int) -> bool:
    """Waits until the provider was asked to revoke so many tokens. Whether these are all."""
    await until(lambda: provider.asked.count(REVOKE) >= number)
    return provider.asked.count(REVOKE) == number


@pytest.mark.parametrize("part", ["used", "expires"])
async def test_a_session_that_is_over_is_noticed_without_a_request(
    vera: Browser, provider: ScriptedProvider, part: str
) -> None:
    session, _ = Visitor(vera).session()
    setattr(session, part, session.started - sessions.IDLE)
    assert await revoked(provider, 1)
    assert session.ended.is_set()


async def test_the_session_that_gives_way_to_one_too_many(vera: Browser, provider: ScriptedProvider) -> None:
    async with AsyncExitStack() as browsers:
        for _ in range(sessions._MOST_OF_ONE_PERSON):
            assert provider.asked.count(REVOKE) == 0
            await provider.sign_in(await browsers.enter_async_context(another_browser(vera)))
        assert await revoked(provider, 1)


async def test_the_session_of_somebody_whose_token_an_administrator_revoked(
    vera: Browser, provider: ScriptedProvider
) -> None:
    session, _ = Visitor(vera).session()
    session.token = "e30.e30.e30"
    assert (await vera.get("/account")).status_code == 303
    assert await revoked(provider, 1)


async def test_the_session_whose_renewed_token_the_coordinator_refuses(
    vera: Browser, provider: ScriptedProvider
) -> None:
    session, renewal = Visitor(vera).session()
    renewal.due, provider.access_token = session.started, "e30.e30.e30"
    assert (await vera.get("/account")).status_code == 303
    assert await revoked(provider, 1)


async def test_the_session_of_a_browser_in_which_somebody_signs_in_anew(
    vera: Browser, provider: ScriptedProvider, api: Api
) -> None:
    assert (await vera.sign_in(api.token("olga", "operator"))).status_code == 303
    assert await revoked(provider, 1)


async def test_what_was_given_to_somebody_whom_the_coordinator_does_not_know(
    vera: Browser, provider: ScriptedProvider
) -> None:
    provider.access_token = "e30.e30.e30"
    async with another_browser(vera) as other:
        assert (await provider.sign_in(other)).status_code == 403
    assert await revoked(provider, 1)


async def test_what_was_given_to_a_sign_in_that_is_not_this_one(vera: Browser, provider: ScriptedProvider) -> None:
    provider.claims = {"nonce": "another"}
    async with another_browser(vera) as other:
        assert (await provider.sign_in(other)).status_code == 502
    assert await revoked(provider, 1)


async def test_what_was_given_to_one_too_many_for_the_console(
    vera: Browser, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_MOST", 1)
    async with another_browser(vera) as other:
        assert (await provider.sign_in(other)).status_code == 503
    assert await revoked(provider, 1)


async def test_all_sessions_when_the_console_ends(api: Api, provider: ScriptedProvider) -> None:
    async with browsing(api, openid=provider.client()) as browser:
        await provider.sign_in(browser)
        async with another_browser(browser) as other:
            await provider.sign_in(other)
    assert provider.asked.count(REVOKE) == 2


@pytest.mark.parametrize("answer", [Answer(b"", 503), Answer(b"", 302, {"Location": "/elsewhere"})])
async def test_a_provider_that_revokes_nothing_keeps_nobody_in(
    vera: Browser, provider: ScriptedProvider, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers[REVOKE] = answer
    await vera.post("/sign-out", form_token=await vera.form_token())
    await until(lambda: "did not revoke the token of a session that is over" in caplog.text)
    assert (await vera.get("/account")).status_code == 303


async def test_few_tokens_are_revoked_at_a_time_and_nobody_waits_for_them(
    vera: Browser, provider: ScriptedProvider
) -> None:
    go, right, now, most = threading.Event(), provider.server.page.wait, 0, 0
    counting = threading.Lock()

    def held() -> None:
        nonlocal now, most
        if provider.asked[-1] == REVOKE or go.is_set():
            with counting:
                now += 1
                most = max(most, now)
            assert go.wait(PATIENCE)
            with counting:
                now -= 1
        right()

    async with AsyncExitStack() as browsers:
        for _ in range(3 * MOST_AT_ONCE):
            await provider.sign_in(await browsers.enter_async_context(another_browser(vera)))
        form_token = await vera.form_token()
        provider.server.page.wait = held
        out = await vera.post("/sign-out", form_token=form_token, everywhere="yes")
        assert out.status_code == 303
        await until(lambda: now == MOST_AT_ONCE)
        go.set()
        assert await revoked(provider, 3 * MOST_AT_ONCE + 1)
        assert most == MOST_AT_ONCE
