"""The console's lists in a real browser: from the overview to a stuck flow and its cause, by keyboard alone, live, and
usable for everybody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.streams.workers import announce
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.mesh.wire.subjects import Kind, quarantine_subject
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion
from handrail.visibility.index.database import open_engine
from tests.support import flows
from tests.support.api import Api
from tests.support.axe import grave_violations, installed_axe
from tests.support.indexed import indexed_api
from tests.support.mesh import Mesh, publish
from tests.support.windows import Opened, press_to, signed_in, windows

LONG = "onboarding-of-suppliers-abroad"
STUCK, ASKED = "CB-<b>1", "CB-2041"
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\u200b"
PAGES = (
    "/",
    "/flows",
    "/flows?filter=stuck",
    "/flows?filter=stats+%3D+x",
    "/approvals?view=all",
    "/quarantine",
    "/quarantine?message=enrichment/1",
    "/agents",
    f"/templates/{LONG}",
    "/templates",
    "/templates/refund",
    "/find",
    "/account",
    "/nothing",
    *(f"/flows/refund/{ASKED}?tab={tab}" for tab in ("timeline", "events", "graph", "causes", "undo")),
    f"/flows/{flow_id_from_key('refund', STUCK)}",
)


def begun(key: str) -> Entry:
    """The first event of the flow with this key."""
    entry = flows.start(flow_id_from_key("refund", key))
    entry.event.key = key
    return entry


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index: a flow is stuck, one waits for votes, a message is in quarantine. Texts are those of
    strangers.
    """
    engine: Engine = open_engine(f"sqlite:///{tmp_path}/index.db")
    async with indexed_api(bus, engine, tmp_path, decides=True) as api:
        mesh = Mesh(bus, api.replica.catalog)
        await mesh.put(flows.template(gated=True), flows.template(LONG))
        await ensure_quarantines(bus, api.replica.catalog.all())
        stuck, asked = (flow_id_from_key("refund", each) for each in (STUCK, ASKED))
        await publish(bus, begun(STUCK), flows.failed(HOSTILE, stuck))
        await publish(bus, begun(ASKED), flows.enriched(asked, kind=Kind.PROPOSAL))
        record = Quarantined(
            reason=ErrorReason.ERROR_REASON_CONTRACT_VIOLATION, detail=HOSTILE, subject=HOSTILE, body=HOSTILE.encode()
        )
        subject = quarantine_subject("refund", asked, "enrichment", "enrichment", "c" * 32)
        await bus.publish(subject, record.SerializeToString())
        said = [WorkerVersion(flow_type=each, version=1, problem=HOSTILE) for each in ("refund", LONG)]
        await announce(bus, "enrichment", "a" * 32, WorkerState(versions=said, stuck=[HOSTILE]))
        yield api
    engine.dispose()


@pytest.fixture
async def opened(api: Api, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens windows in which Vera or Anna, of finance, may sign in."""
    tokens = {"vera": api.token("vera", "viewer"), "anna": api.token("anna", "finance")}
    async with windows(api.address, tmp_path, tokens) as opened:
        yield opened


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core."""
    return installed_axe(tmp_path_factory.mktemp("axe"))


async def until_listed(page: Page) -> None:
    """Reloads the overview until it has what the flows wait for."""
    stuck = page.locator('tr[data-row^="Stuck"]')
    waiting = page.locator('tr[data-row^="Approval"]')
    await expect(stuck).to_have_count(1)
    await expect(waiting).to_have_count(1)


async def test_three_clicks_lead_from_the_overview_to_a_stuck_flow_and_its_cause(opened: Opened) -> None:
    async with opened() as page:
        await signed_in(page)
        await until_listed(page)
        await page.get_by_role("link", name="Stuck").click()
        await page.get_by_role("link", name=STUCK).click()
        await expect(page.locator(".why")).to_contain_text("A person must decide about step enrich.")
        await page.get_by_role("link", name="Causes").click()
        await expect(page.locator(".causes")).to_contain_text("StepFailed")
        await page.goto("/")
        await page.locator('tr[data-row^="Stuck"]').get_by_role("link").click()
        await page.wait_for_url("**/flows/*")
        assert "<script>alert(1)</script>" in await page.locator(".why").inner_text()


async def test_a_flow_is_found_by_its_order_number(opened: Opened) -> None:
    async with opened() as page:
        await signed_in(page)
        await until_listed(page)
        await page.get_by_role("link", name="Open a flow").click()
        await page.get_by_label("Business key").fill(ASKED)
        await page.keyboard.press("Enter")
        await page.locator("tbody").get_by_role("link", name=ASKED).click()
        await expect(page.get_by_role("heading", name=ASKED)).to_be_visible()
        assert "must approve 250.00 EUR" in await page.locator(".why").inner_text()


async def test_the_keyboard_alone_completes_a_filter_and_opens_what_it_finds(opened: Opened) -> None:
    async with opened() as page:
        await press_to(page, "vera")
        await page.keyboard.press("Enter")
        await until_listed(page)
        await press_to(page, "Flows")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Flows")).to_be_visible()
        while await page.evaluate("document.activeElement.id") != "filter":
            await page.keyboard.press("Tab")
        offered = page.locator("#offered li")
        await page.keyboard.type("statu")
        await expect(offered).to_have_text(["status"])
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page.locator("#filter")).to_have_value("status = ")
        await page.keyboard.type("esc")
        await expect(offered).to_have_text(["ESCALATED"])
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page.locator("#filter")).to_have_value("status = ESCALATED ")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/flows?filter=status*")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await press_to(page, STUCK)
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "2px"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=STUCK)).to_be_visible()


async def test_the_filter_asks_for_its_words_once_and_again_after_a_failure(opened: Opened) -> None:
    asked: list[str] = []

    async def fail_once(route: Route) -> None:
        asked.append(route.request.url)
        await (route.fulfill(status=503) if len(asked) == 1 else route.continue_())

    async with opened() as page:
        await signed_in(page)
        await page.goto("/flows")
        await page.route("**/completion", fail_once)
        field, offered = page.get_by_role("combobox", name="Filter"), page.get_by_role("listbox", name="Completions")
        async with page.expect_response("**/completion"):
            await field.press_sequentially("s")
        await expect(offered).to_be_hidden()
        async with page.expect_response("**/completion"):
            await field.press_sequentially("t")
        await expect(offered).to_contain_text("status")
        await expect(field).to_have_attribute("aria-expanded", "true")
        await field.press_sequentially("atu")
        await expect(offered.get_by_role("option")).to_have_text(["status"])
        await field.press("ArrowDown")
        option = await field.get_attribute("aria-activedescendant")
        await expect(page.locator(f"#{option}")).to_have_attribute("aria-selected", "true")
        await field.press("Escape")
        await expect(field).to_have_attribute("aria-expanded", "false")
        assert len(asked) == 2


async def test_news_of_a_list_come_by_themselves_and_never_move_the_row_that_somebody_points_at(
    opened: Opened, bus: NatsBus
) -> None:
    async with opened() as page:
        await signed_in(page)
        await until_listed(page)
        await page.goto("/flows")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(2)
        await publish(bus, begun("CB-3"))
        await expect(rows).to_have_count(3)
        last = rows.last
        await last.hover()
        before = await last.bounding_box()
        await publish(bus, begun("CB-4"), begun("CB-5"))
        await expect(page.locator("#news")).to_contain_text("2 new ↑")
        assert await last.bounding_box() == before
        await page.locator("#news button").click()
        await expect(rows).to_have_count(5)


@pytest.mark.parametrize("path", ["/flows", f"/flows/refund/{ASKED}"])
async def test_a_page_says_that_its_session_is_over(opened: Opened, path: str) -> None:
    async with opened() as page:
        await signed_in(page)
        await page.goto(path)
        other = await page.context.new_page()
        await other.goto("/account")
        await other.get_by_role("button", name="Sign out", exact=True).click()
        await expect(page.locator("#news")).to_have_text("Your session is over. Reload the page to sign in.")
        assert page.url.endswith(path), "what was seen stays"


async def test_a_list_that_can_not_be_read_again_says_why(opened: Opened, api: Api) -> None:
    async with opened() as page:
        await signed_in(page)
        await page.goto("/flows")
        await api.server.drain()
        await expect(page.locator("#news")).to_contain_text("What you see may be old.")
        assert "No connection to the console" not in await page.locator("#news").inner_text()


async def test_an_approval_is_a_page_of_its_own_on_a_telephone(opened: Opened) -> None:
    async with opened(viewport={"width": 360, "height": 780}) as page:
        await signed_in(page, "anna")
        await until_listed(page)
        await page.goto("/approvals")
        detail = page.locator("#detail")
        await expect(page.get_by_role("link", name="Mine 1")).to_be_visible()
        await expect(detail).to_be_hidden()
        await page.locator("tbody").get_by_role("link").click()
        await expect(detail).to_contain_text("250.00 EUR")
        assert await page.locator("tbody").is_hidden()
        await page.get_by_role("link", name="All of this view").click()
        await expect(detail).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_page_can_be_used_by_everybody_and_fits_a_telephone(opened: Opened, axe: str, theme: str) -> None:
    async with opened(color_scheme=theme, viewport={"width": 360, "height": 780}) as page:
        await page.wait_for_load_state()
        assert await grave_violations(page, axe) == [], "the sign-in"
        await signed_in(page)
        await until_listed(page)
        for width in (1280, 360):
            await page.set_viewport_size({"width": width, "height": 780})
            for path in PAGES:
                await page.goto(path)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert await grave_violations(page, axe) == [], f"{path} at {width} px"
