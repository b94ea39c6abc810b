"""The pages of templates: versions, what changed, the graph, who activated what and why."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, another_browser
from tests.support.mesh import Mesh

HOSTILE = "</td><script>alert(1)</script>\u202e"


async def stored(api: Api, bus: NatsBus) -> None:
    """Two versions of one template; the second is active."""
    mesh = Mesh(bus, api.replica.catalog)
    await mesh.put(flows.template())
    await mesh.put(flows.template(version=2, gated=True, timeout=timedelta(seconds=60)))


async def test_each_template_is_listed_with_its_versions(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    page = await vera.page("/templates")
    assert page.count('href="/templates/refund"') == 1
    assert re.search(r">v2<.*>v2<.*>2<", page, re.DOTALL)


async def test_the_active_version_says_what_changed(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    page = await vera.page("/templates/refund")
    assert "<h1>refund v2</h1>" in page
    assert "What changed since v1" in page
    assert page.count("<li>") >= 3
    assert "look" in page
    assert '<figure class="graph"' in page
    assert "stored by olga" in page
    assert "<td>test</td>" in page
    assert "style=" not in page


async def test_an_older_version_is_shown_on_request(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    page = await vera.page("/templates/refund?version=1")
    assert "<h1>refund v1</h1>" in page
    assert "Not active" in page
    assert "There is no older one to compare with." in page


async def test_what_is_not_stored_is_not_found(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    assert (await vera.get("/templates/none")).status_code == 404
    assert (await vera.get("/templates/<script>")).status_code in (400, 404)


async def test_without_any_template_the_page_says_what_stores_one(vera: Browser) -> None:
    assert "No template is stored." in await vera.page("/templates")


async def test_what_people_wrote_is_text(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    catalog = api.replica.catalog
    await catalog.activate("refund", 1, by=HOSTILE, reason=HOSTILE, now=datetime.now(UTC))
    page = await vera.page("/templates/refund")
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_a_template_is_for_those_who_may_read_its_flows(vera: Browser, api: Api, bus: NatsBus) -> None:
    await stored(api, bus)
    async with another_browser(vera) as stranger:
        await stranger.sign_in(api.token("stranger", grants=["reader@other"]))
        assert "refund" not in (await stranger.get("/templates")).text
        assert (await stranger.get("/templates/refund")).status_code in (403, 404)
