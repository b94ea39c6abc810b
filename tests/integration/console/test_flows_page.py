"""The list of flows at a coordinator that has no index."""

from __future__ import annotations

from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser
from tests.support.mesh import publish


async def test_without_an_index_the_stream_is_offered_and_read(vera: Browser, api: Api, bus: NatsBus) -> None:
    await api.replica.catalog.put(flows.stored(flows.template()))
    await publish(bus, flows.start())
    answer = await vera.get("/flows")
    assert answer.status_code == 503
    assert '<a href="/flows?scan=yes">Read the stream instead</a>' in answer.text
    page = await vera.page("/flows?scan=yes")
    assert f'href="/flows/{flows.FLOW_ID}"' in page
    assert "read from the stream" in page


async def test_no_flow_at_all_is_said(vera: Browser) -> None:
    assert "No flow has begun." in await vera.page("/flows?scan=yes")
