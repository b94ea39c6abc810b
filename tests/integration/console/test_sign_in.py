"""Who gets into the console, how a session ends, and what a stranger's page can't do."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from handrail.console.web import throttle
from handrail.mesh.setting_parsers import networks
from tests.support.api import Api
from tests.support.console import ORIGIN, Browser, another_browser, browsing, console_process
from tests.support.dev import HANDRAIL, environment

PAGES = ["/", "/account", "/flows", "/approvals", "/quarantine", "/agents", "/templates"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_leads_to_the_sign_in_and_back(browser: Browser, api: Api, path: str) -> None:
    asked = await browser.get(path)
    assert asked.status_code == 303
    form = await browser.page(asked.headers["location"])
    assert f'name="back" value="{path}"' in form
    done = await browser.sign_in(api.token("vera", "viewer"), back=path)
    assert (done.status_code, done.headers["location"]) == (303, path)


async def test_a_token_becomes_a_session_that_scripts_and_other_sites_do_not_get(browser: Browser, api: Api) -> None:
    token = api.token("vera", "viewer")
    cookie = (await browser.sign_in(token)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert token not in cookie
    page = await browser.page("/account")
    assert "vera" in page
    assert "viewer" in page
    assert token not in page


async def test_a_cookie_is_for_tls_only_beyond_this_machine(api: Api) -> None:
    async with browsing(api, hosts=frozenset({"console.example.com"})) as browser:
        answer = await browser.client.post(
            "https://console.example.com/sign-in",
            data={"token": api.token("vera", "viewer")},
            headers={"origin": "https://console.example.com"},
        )
    assert answer.headers["set-cookie"].startswith("__Host-handrail_session=")
    assert "Secure" in answer.headers["set-cookie"]


async def test_a_token_that_the_coordinator_refuses_begins_nothing(browser: Browser, api: Api) -> None:
    answer = await browser.sign_in(api.token("vera", "viewer")[:-4] + "AAAA")
    assert answer.status_code == 403
    assert "The coordinator refuses this token." in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "ключ", "x" * 20_000])
async def test_what_can_not_be_a_token_is_not_sent_to_the_coordinator(browser: Browser, token: str) -> None:
    answer = await browser.sign_in(token)
    assert answer.status_code == 400


async def test_a_session_that_the_browser_was_given_does_not_become_a_persons(browser: Browser, api: Api) -> None:
    await browser.sign_in(api.token("mallory", "viewer"))
    planted = browser.client.cookies["handrail_session"]
    await browser.sign_in(api.token("vera", "viewer"))
    assert browser.client.cookies["handrail_session"] != planted
    async with another_browser(browser) as other:
        other.client.cookies.set("handrail_session", planted)
        assert (await other.get("/account")).status_code == 303


@pytest.mark.parametrize(
    "back", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\\b", "/a\x00"]
)
async def test_signing_in_leads_to_no_other_site(browser: Browser, api: Api, back: str) -> None:
    done = await browser.sign_in(api.token("vera", "viewer"), back=back)
    assert done.headers["location"] == "/"


async def test_whoever_fails_again_and_again_has_to_wait(browser: Browser, api: Api) -> None:
    for _ in range(throttle.MOST_FAILURES):
        assert (await browser.sign_in("e30.e30.e30")).status_code == 403
    assert (await browser.sign_in(api.token("vera", "viewer"))).status_code == 429


async def test_a_form_of_another_site_is_refused(vera: Browser, api: Api) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9"):
        answer = await vera.client.post("/sign-out", data={}, headers={"origin": origin})
        assert answer.status_code == 403
    assert (await vera.client.post("/sign-in", data={"token": api.token("mallory")})).status_code == 403
    assert "vera" in await vera.page("/account")


async def test_a_form_without_the_token_of_the_session_is_refused(vera: Browser) -> None:
    assert (await vera.post("/sign-out")).status_code == 403
    assert (await vera.post("/sign-out", form_token="guessed")).status_code == 403
    assert "vera" in await vera.page("/account")


async def test_signing_out_ends_the_session_on_the_server(vera: Browser) -> None:
    key = vera.client.cookies["handrail_session"]
    answer = await vera.post("/sign-out", form_token=await vera.form_token())
    assert answer.status_code == 303
    vera.client.cookies.set("handrail_session", key)
    assert (await vera.get("/account")).status_code == 303


async def test_signing_out_everywhere_ends_all_sessions_of_the_person_and_no_other(vera: Browser, api: Api) -> None:
    async with another_browser(vera) as second, another_browser(vera) as olga:
        await second.sign_in(api.token("vera", "viewer"))
        await olga.sign_in(api.token("olga", "operator"))
        await vera.post("/sign-out", form_token=await vera.form_token(), everywhere="yes")
        assert (await second.get("/account")).status_code == 303
        assert (await olga.get("/account")).status_code == 200


async def test_a_session_does_not_outlive_its_token(browser: Browser, api: Api) -> None:
    await browser.sign_in(api.token("vera", "viewer", lifetime=timedelta(minutes=5)))
    [session] = browser.console.sessions._sessions.values()
    assert session.expires - session.started <= timedelta(minutes=5)


async def test_a_host_name_that_is_not_the_consoles_is_refused(browser: Browser) -> None:
    for host in ("evil.example", "evil.example:7080", "127.0.0.1.evil.example", "", "169.254.169.254"):
        answer = await browser.get("/sign-in", host=host)
        assert answer.status_code == 400, host
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_every_answer_says_what_browsers_may_do(vera: Browser) -> None:
    for path in (*PAGES, "/sign-in", "/static/console.css", "/nothing"):
        headers = (await vera.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


async def test_an_error_names_its_request(vera: Browser) -> None:
    answer = await vera.get("/nothing")
    assert answer.status_code == 404
    assert answer.headers["request-id"] in answer.text


async def test_a_form_that_is_too_large_is_not_read(browser: Browser) -> None:
    assert (await browser.sign_in("e30", back="x" * 100_000)).status_code == 413


async def test_one_click_identities_act_as_the_files_of_a_folder(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    (folder / "vera").write_text(api.token("vera", "viewer") + "\n")
    (tmp_path / "outside").write_text(api.token("outside", "viewer"))
    async with browsing(api, identities=folder) as browser:
        assert '<button name="identity" value="vera">' in await browser.page("/sign-in")
        assert (await browser.post("/sign-in", identity="../outside")).status_code == 400
        assert (await browser.post("/sign-in", identity="nobody")).status_code == 400
        assert (await browser.post("/sign-in", identity="vera")).status_code == 303
        assert "vera" in await browser.page("/account")


async def test_without_a_folder_nobody_is_offered(browser: Browser) -> None:
    assert 'name="identity"' not in await browser.page("/sign-in")
    assert (await browser.post("/sign-in", identity="vera")).status_code == 400


async def test_a_subject_is_shown_as_text(browser: Browser, api: Api) -> None:
    await browser.sign_in(api.token("<script>alert(1)</script>vera", "viewer"))
    page = await browser.page("/account")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;vera" in page


async def test_a_coordinator_that_is_away_is_told_from_a_wrong_token(api: Api) -> None:
    async with browsing(api, coordinator="127.0.0.1:9", timeout=timedelta(seconds=2)) as browser:
        answer = await browser.sign_in(api.token("vera", "viewer"))
    assert answer.status_code == 503
    assert "The coordinator does not answer." in answer.text


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--oidc-issuer", "http://id.example.com"], "it must begin with https://"),
        (["--oidc-issuer", "https://id.example.com", "--console-client-secret-file", "empty"], "empty is empty"),
        (["--oidc-issuer", "https://id.example.com", "--console-client-secret-file", "none"], "none can't be read"),
        (["--console-client-secret-file", "empty"], "name it by --oidc-issuer"),
        (["--oidc-issuer", "https://id.example.com", "--oidc-scope", "profile"], "the scopes lack openid"),
        (["--pasted-tokens", "off"], "nobody could sign in"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_settings(words: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    command = [*HANDRAIL, "console", "--console-listen", "127.0.0.1:0", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, complaint in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_serves_and_ends_when_told() -> None:
    with console_process("127.0.0.1:9") as origin:
        assert origin.startswith("http://127.0.0.1:")
        assert httpx.get(f"{origin}/sign-in").status_code == 200


async def test_behind_a_trusted_proxy_only_whoever_fails_has_to_wait(api: Api) -> None:
    async with browsing(api, trusted_proxies=networks("127.0.0.1")) as browser:

        async def sign_in(address: str, token: str) -> int:
            headers = {"origin": ORIGIN, "x-forwarded-for": f"198.51.100.1, {address}"}
            answer = await browser.client.post("/sign-in", data={"token": token}, headers=headers)
            return answer.status_code

        for _ in range(throttle.MOST_FAILURES):
            assert await sign_in("203.0.113.7", "e30.e30.e30") == 403
        assert await sign_in("203.0.113.7", api.token("vera", "viewer")) == 429
        assert await sign_in("203.0.113.8", api.token("vera", "viewer")) == 303


async def test_without_a_trusted_proxy_nobody_says_whose_request_it_is(api: Api) -> None:
    async with browsing(api, trusted_proxies=networks("10.0.0.1")) as browser:
        statuses = []
        for number in range(throttle.MOST_FAILURES + 1):
            named = {name: f"for=203.0.113.{number}"[cut:] for name, cut in (("forwarded", 0), ("x-forwarded-for", 4))}
            headers = {"origin": ORIGIN, **named}
            answer = await browser.client.post("/sign-in", data={"token": "e30.e30.e30"}, headers=headers)
            statuses.append(answer.status_code)
        assert statuses == [403] * throttle.MOST_FAILURES + [429]
