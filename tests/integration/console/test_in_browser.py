"""The console in a real browser: by keyboard alone, at 360 px, in both themes, without a violation of its policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.mesh.wire.subjects import Kind
from tests.support import flows
from tests.support.api import Api
from tests.support.chromium import running_chromium
from tests.support.console import console_process
from tests.support.mesh import publish

KEY = "CB-2041"
FLOW_ID = flow_id_from_key("refund", KEY)
PATH = f"/flows/refund/{KEY}"
PAGES = [
    "/",
    "/find",
    "/flows?scan=yes",
    "/approvals?scan=yes",
    "/quarantine",
    "/agents",
    "/templates",
    "/templates/refund",
    "/account",
    "/nothing",
    *(f"{PATH}?tab={tab}" for tab in ("timeline", "events", "graph", "causes", "undo")),
]

Opened = Callable[..., Any]


@pytest.fixture
async def api(api: Api, bus: NatsBus) -> Api:
    """A coordinator with a flow whose proposal waits for people."""
    await api.replica.catalog.put(flows.stored(flows.template(gated=True)))
    await publish(bus, flows.start(FLOW_ID), flows.enriched(FLOW_ID, kind=Kind.PROPOSAL))
    return api


@pytest.fixture
async def opened(api: Api, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens the sign-in page in a browser window. The test fails if a page breaks the policy or a script fails."""
    folder = tmp_path / "identities"
    folder.mkdir()
    (folder / "vera").write_text(api.token("vera", "viewer"))
    with console_process(api.address, "--identities", str(folder)) as origin:
        async with running_chromium() as chromium:

            @asynccontextmanager
            async def window(**options: Any) -> AsyncIterator[Page]:
                context = await chromium.new_context(base_url=origin, **options)
                page = await context.new_page()
                complaints: list[str] = []
                page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
                page.on("pageerror", lambda error: complaints.append(str(error)))
                await page.goto("/sign-in")
                yield page
                assert [each for each in complaints if "status of" not in each] == []
                await context.close()

            yield window


async def signed_in(page: Page) -> None:
    await page.get_by_role("button", name="vera").click()
    await page.wait_for_url("**/")
    await expect(page.get_by_role("link", name="vera")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_page_fits_a_telephone_and_has_its_theme(opened: Opened, theme: str) -> None:
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
    async with opened(viewport={"width": 360, "height": 780}, color_scheme=theme) as page:
        await signed_in(page)
        for path in PAGES:
            await page.goto(path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path
            assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == grounds[theme]


async def test_a_flow_is_opened_by_keyboard_alone(opened: Opened) -> None:
    async with opened() as page:
        await press_to(page, "vera")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/")
        await press_to(page, "Open a flow")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Open a flow")).to_be_visible()
        while await page.evaluate("document.activeElement.id") != "q":
            await page.keyboard.press("Tab")
        await page.keyboard.type(f"refund/{KEY}")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=KEY)).to_be_visible()
        await press_to(page, "Graph")
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "2px"
        await page.keyboard.press("Enter")
        await expect(page.locator("figure.graph svg")).to_be_visible()


async def press_to(page: Page, text: str) -> None:
    """Presses Tab until something with this text has the focus."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if (await page.evaluate("document.activeElement.textContent")).strip() == text:
            return
    raise AssertionError(f"Tab does not lead to {text}")


async def test_an_open_page_follows_its_flow(opened: Opened, bus: NatsBus) -> None:
    async with opened() as page:
        await signed_in(page)
        other = flow_id_from_key("refund", "CB-2")
        await publish(bus, flows.start(other))
        await page.goto("/flows/refund/CB-2")
        await expect(page.locator(".why")).to_contain_text("enrichment owes the outcome of step enrich")
        await publish(bus, flows.enriched(other, kind=Kind.PROPOSAL))
        await expect(page.locator(".why")).to_contain_text("must approve 250.00 EUR", timeout=20_000)
        assert "Waiting for approval" in await page.locator("#head").inner_text()


async def test_news_do_not_move_what_somebody_points_at(opened: Opened, bus: NatsBus) -> None:
    async with opened() as page:
        await signed_in(page)
        other = flow_id_from_key("refund", "CB-2")
        await publish(bus, flows.start(other))
        await page.goto("/flows/refund/CB-2?tab=events")
        await page.locator("#view").hover()
        await publish(bus, flows.enriched(other, kind=Kind.PROPOSAL))
        await expect(page.locator("#news")).to_contain_text("new ↑", timeout=20_000)
        assert await page.locator("tbody tr").count() == 1
        await page.locator("#news button").click()
        await expect(page.locator("tbody tr")).not_to_have_count(1)


async def test_a_flow_is_shown_as_it_was_with_and_without_script(opened: Opened) -> None:
    async with opened() as page:
        await signed_in(page)
        await page.goto(PATH)
        await page.locator("#at").focus()
        await page.keyboard.press("Home")
        await expect(page.locator(".notice")).to_contain_text("after message 1 of")
    async with opened(java_script_enabled=False) as page:
        await signed_in(page)
        await page.goto(PATH)
        await page.locator("#at").focus()
        await page.keyboard.press("Home")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator(".notice")).to_contain_text("after message 1 of")
        assert "enrichment owes the outcome of step enrich" in await page.locator(".why").inner_text()
