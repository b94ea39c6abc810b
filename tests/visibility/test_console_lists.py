"""The console's list of flows, from an index: by filter, in an order, page by page, and only what the token allows."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, browsing
from tests.support.indexed import indexed_api
from tests.support.mesh import Mesh, publish

pytestmark = pytest.mark.usefixtures("patient")

REFUNDS = 60
FLOW = re.compile(r'href="/flows/([0-9a-f]{32})"')


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of refunds, of which every third is completed, and one audit."""
    await mesh.put(flows.template(), flows.template("audit"))
    for number in range(REFUNDS):
        flow_id = f"{number + 1:032x}"
        await publish(bus, flows.start(flow_id))
        if number % 3 == 0:
            await publish(bus, flows.enriched(flow_id), flows.notified(flow_id))
    await publish(bus, flows.start("a" * 32, flow_type="audit"))
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api


@pytest.fixture
async def vera(api: Api) -> AsyncIterator[Browser]:
    """A browser in which somebody is signed in who may see everything."""
    async with browsing(api) as browser:
        await browser.sign_in(api.token("vera", "viewer"))
        yield browser


async def everything(browser: Browser, path: str) -> list[str]:
    """The flows of all pages of a list."""
    found: list[str] = []
    while True:
        page = await browser.page(path)
        found += FLOW.findall(page)
        following = re.search(r'href="([^"]+)">Next page', page)
        if following is None:
            return found
        path = html.unescape(following[1])


async def test_a_list_is_found_page_by_page(vera: Browser) -> None:
    found = await everything(vera, "/flows")
    assert len(found) == len(set(found)) == REFUNDS + 1
    assert found[0] == "a" * 32
    oldest = await everything(vera, "/flows?order=started")
    assert oldest == found[::-1]


async def test_the_filter_is_in_the_address(vera: Browser) -> None:
    found = await everything(vera, "/flows?filter=status+%3D+COMPLETED")
    assert len(found) == REFUNDS / 3
    page = await vera.page("/flows?filter=status+%3D+COMPLETED")
    assert 'value="status = COMPLETED"' in page
    assert "20 flows" in page
    assert len(page.encode()) < 100_000


async def test_a_chip_takes_its_condition_away(vera: Browser) -> None:
    page = await vera.page("/flows?filter=flow_type+%3D+audit+status+%3D+RUNNING")
    assert '<a class="chip on" href="/flows?filter=flow_type+%3D+audit"' in page


async def test_a_wrong_filter_is_said_with_its_column(vera: Browser) -> None:
    answer = await vera.get("/flows?filter=stats+%3D+COMPLETED")
    assert answer.status_code == 400
    assert "did you mean status?" in answer.text
    assert 'value="stats = COMPLETED"' in answer.text


async def test_an_empty_list_has_one_sentence_and_one_way_on(vera: Browser) -> None:
    page = await vera.page("/flows?filter=stuck")
    assert "No flow matches." in page
    assert '<a href="/flows">Show all flows</a>' in page


async def test_a_hostile_filter_is_text(vera: Browser) -> None:
    answer = await vera.client.get("/flows", params={"filter": '"><script>alert(1)</script>\u202e'})
    assert "<script>alert" not in answer.text
    assert "\u202e" not in answer.text


async def test_a_person_sees_the_flow_types_of_the_token(api: Api) -> None:
    async with browsing(api) as browser:
        answer = await browser.sign_in(api.token("audrey", grants=["reader@audit"]))
        assert answer.status_code == 303, answer.text
        assert await everything(browser, "/flows") == ["a" * 32]
