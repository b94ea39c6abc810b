"""The console in a real browser: by keyboard alone, at 360 px, in both themes, without a violation of its policy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.mesh.wire.subjects import Kind
from tests.support import flows
from tests.support.api import Api
from tests.support.mesh import publish
from tests.support.windows import Opened, press_to, signed_in, windows

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


@pytest.fixture
async def api(api: Api, bus: NatsBus) -> Api:
    """A coordinator with a flow whose proposal waits for people."""
    await api.replica.catalog.put(flows.stored(flows.template(gated=True)))
    await publish(bus, flows.start(FLOW_ID), flows.enriched(FLOW_ID, kind=Kind.PROPOSAL))
    return api


@pytest.fixture
async def opened(api: Api, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens windows in which Vera may sign in."""
    async with windows(api.address, tmp_path, {"vera": api.token("vera", "viewer")}) as opened:
        yield opened


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


async def test_an_open_page_follows_its_flow(opened: Opened, bus: NatsBus) -> None:
    async with opened() as page:
        await signed_in(page)
        other = flow_id_from_key("refund", "CB-2")
        await publish(bus, flows.start(other))
        await page.goto("/flows/refund/CB-2")
        await expect(page.locator(".why")).to_contain_text("enrichment owes the outcome of step enrich")
        await publish(bus, flows.enriched(other, kind=Kind.PROPOSAL))
        await expect(page.locator(".why")).to_contain_text("must approve 250.00 EUR")
        assert "Waiting for approval" in await page.locator("#head").inner_text()


async def test_news_do_not_move_what_somebody_points_at(opened: Opened, bus: NatsBus) -> None:
    async with opened() as page:
        await signed_in(page)
        other = flow_id_from_key("refund", "CB-2")
        await publish(bus, flows.start(other))
        await page.goto("/flows/refund/CB-2?tab=events")
        await page.locator("#view").hover()
        await publish(bus, flows.enriched(other, kind=Kind.PROPOSAL))
        await expect(page.locator("#news")).to_contain_text("new ↑")
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
