"""The page of a flow: found by id and by key, now and as it was, for those who may see it; and whatever strangers sent
is text on it.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.type.money_pb2 import Money

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Escalated, EscalationCause, FlowHalted, HaltMode
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, Risk
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, another_browser, browsing, console_process
from tests.support.mesh import publish
from tests.support.waiting import PATIENCE, eventually

TABS = ["timeline", "events", "graph", "causes", "undo"]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\"`{{7*7}}\u202e\x1b[31m\u200b"
PATH = f"/flows/{flows.FLOW_ID}"


@pytest.fixture
async def api(api: Api) -> Api:
    """A coordinator that knows the small flow type, with a gate."""
    await api.replica.catalog.put(flows.stored(flows.template(gated=True)))
    return api


@pytest.fixture
async def asked(vera: Browser, api: Api, bus: NatsBus) -> Browser:
    """A flow whose proposal waits for people, and a browser of one who may see it."""
    await publish(bus, flows.start(), flows.enriched(kind=Kind.PROPOSAL))

    async def page() -> str:
        return (await vera.get(PATH)).text

    await eventually(page, lambda text: "must approve" in text)
    return vera


async def test_the_sentence_comes_first(asked: Browser) -> None:
    page = await asked.page(PATH)
    assert page.index("One person of finance must approve 250.00 EUR by") < page.index('<nav class="tabs"')
    assert "Waiting for approval" in page
    assert "If nobody answers, it counts as refused." in page or "If nobody answers, " in page


@pytest.mark.parametrize("tab", TABS)
async def test_every_view_of_a_flow_is_there(asked: Browser, tab: str) -> None:
    page = await asked.page(f"{PATH}?tab={tab}")
    assert 'aria-current="page">' in page
    assert len(page.encode()) < 100_000
    for wrong in ("style=", "<style", "onclick", "javascript:"):
        assert wrong not in page


async def test_an_event_is_shown_by_its_contract(asked: Browser) -> None:
    sequences = re.findall(r"event=(\d+)&amp;from", await asked.page(f"{PATH}?tab=events"))
    page = await asked.page(f"{PATH}?tab=events&event={sequences[1]}")
    assert "&#34;risk&#34;: &#34;RISK_LOW&#34;" in page
    assert "payments.v1.ChargebackEnriched" in page


async def test_a_void_message_says_why(asked: Browser, bus: NatsBus) -> None:
    await publish(bus, flows.decision(FlowHalted(mode=HaltMode.HALT_MODE_HOLD), based_on=1))
    page = await asked.page(f"{PATH}?tab=events")
    assert "void" in page


async def test_a_flow_is_found_by_its_key(vera: Browser, bus: NatsBus) -> None:
    key = "order/17 <b>ü"
    await publish(bus, flows.start(flow_id_from_key("refund", key)))
    found = await vera.get(f"/find?q={httpx.QueryParams({'q': f'refund/{key}'})['q']}")
    assert found.status_code == 303
    page = await vera.page(found.headers["location"])
    assert "<h1>order/17 &lt;b&gt;ü</h1>" in page
    assert "enrichment owes the outcome of step enrich" in page


async def test_a_key_may_be_any_word(vera: Browser, bus: NatsBus) -> None:
    for key in ("live", "events", "a/live"):
        await publish(bus, flows.start(flow_id_from_key("refund", key)))
        assert f"<h1>{key}</h1>" in await vera.page(f"/flows/refund/{key}")


@pytest.mark.parametrize("wanted", ["", "refund/", "../x", "</script>", "x" * 5_000])
async def test_what_can_not_be_found_is_said(vera: Browser, wanted: str) -> None:
    page = (await vera.client.get("/find", params={"q": wanted})).text
    assert "Open a flow" in page
    assert "<script>" not in page


async def test_a_key_alone_leads_to_the_flows_that_have_it(vera: Browser) -> None:
    for wanted, quoted in (("CB-2041", "CB-2041"), ('a "b" <c>*\\', 'a \\"b\\" <c>\\*\\\\')):
        found = await vera.client.get("/find", params={"q": wanted})
        assert found.status_code == 303
        assert httpx.URL(found.headers["location"]).params["filter"] == f'key = "{quoted}"'


async def test_the_flow_is_shown_as_it_was(asked: Browser) -> None:
    page = await asked.page(f"{PATH}?at=1")
    assert "after message 1 of" in page
    assert "enrichment owes the outcome of step enrich" in page
    assert "must approve" not in page
    assert "data-stream" not in page
    assert "Events 1<" in page


async def test_a_moment_that_is_none_is_now(asked: Browser) -> None:
    for at in ("0", "999", "-1", "x", "٣", "9" * 30):
        assert "must approve" in await asked.page(f"{PATH}?at={at}")


@pytest.mark.parametrize("path", ["/flows/" + "0" * 32, "/flows/xyz", "/flows/refund/none", f"{PATH}?tab=none"])
async def test_what_is_not_there_is_an_error_with_what_to_do(vera: Browser, path: str) -> None:
    answer = await vera.get(path)
    assert answer.status_code in (400, 404)
    assert answer.headers["request-id"] in answer.text
    assert "To the start" in answer.text


async def test_nobody_sees_more_than_the_token_allows(asked: Browser, api: Api) -> None:
    async with another_browser(asked) as stranger:
        assert (await stranger.sign_in(api.token("stranger", grants=["reader@other"]))).status_code == 303
        for path in (PATH, f"{PATH}?tab=events", f"{PATH}?tab=undo"):
            answer = await stranger.get(path)
            assert answer.status_code in (403, 404)
            assert "250.00" not in answer.text


async def test_a_token_that_ended_leads_back_to_the_sign_in(vera: Browser, api: Api) -> None:
    [session] = vera.console.sessions._sessions.values()
    session.token = api.token("vera", "viewer", lifetime=timedelta(hours=-2))
    answer = await vera.get(PATH)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")
    assert session.ended.is_set()


@pytest.fixture
async def hostile(vera: Browser, bus: NatsBus) -> Browser:
    """A flow in which each text says what a stranger would have it say."""
    money = Money(currency_code="EUR", units=1)
    received = ChargebackReceived(chargeback_id=HOSTILE, account_id=HOSTILE, amount=money)
    enriched = ChargebackEnriched(
        chargeback_id=HOSTILE, account_id=HOSTILE, amount=money, risk=Risk.RISK_LOW, email=HOSTILE
    )
    await publish(bus, flows.start(message=received), flows.enriched(message=enriched, kind=Kind.PROPOSAL))
    halted = FlowHalted(mode=HaltMode.HALT_MODE_HOLD, reason=HOSTILE, by=HOSTILE)
    matter = Escalated(
        escalation_id="e" * 32, cause=EscalationCause.ESCALATION_CAUSE_RULE, subject_id=HOSTILE, reason=HOSTILE
    )
    await publish(bus, flows.decision(halted, about="a"), flows.decision(matter, about="b"))
    return vera


async def test_what_strangers_sent_is_text(hostile: Browser) -> None:
    listed = await hostile.page(f"{PATH}?tab=events")
    paths = [f"{PATH}?tab={tab}" for tab in TABS]
    paths += [f"{PATH}?tab=events&event={each}" for each in re.findall(r"event=(\d+)&amp;from", listed)]
    paths += [
        f"{PATH}?tab=events&step={httpx.QueryParams({'s': HOSTILE})}",
        f"/flows/refund/{'%3Cscript%3E'}",
    ]
    seen = ""
    for path in paths:
        page = (await hostile.get(path)).text
        seen += page
        assert "<script>alert" not in page, path
        assert "<img" not in page, path
        assert not re.search("[\u202e\u200b\x1b]", page), path
        assert page.count("<script") == 1, path
    assert "&lt;script&gt;alert(1)" in seen
    assert "{{7*7}}" in seen
    assert "49'" not in seen


async def test_a_page_hears_at_once_that_its_flow_moved(api: Api, bus: NatsBus) -> None:
    first = await publish(bus, flows.start())
    with console_process(api.address) as origin:
        async with httpx.AsyncClient(base_url=origin, timeout=20) as client:
            token = api.token("vera", "viewer")
            await client.post("/sign-in", data={"token": token}, headers={"origin": origin})
            async with client.stream("GET", f"/live/{flows.FLOW_ID}?after={first}") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = stream.aiter_lines()
                second = await publish(bus, flows.enriched(kind=Kind.PROPOSAL))
                assert await following(lines, "data: ") == f"data: {second}"
                form = re.search(r'name="form_token" value="([^"]+)"', (await client.get("/account")).text)
                assert form is not None
                await client.post("/sign-out", data={"form_token": form[1]}, headers={"origin": origin})
                assert await following(lines, "event: ended") == "event: ended"


async def following(lines: Any, beginning: str) -> str:
    async with asyncio.timeout(PATIENCE):
        async for line in lines:
            if line.startswith(beginning):
                return str(line)
    raise AssertionError(f"the stream ended before {beginning}")


async def test_one_session_has_a_number_of_streams(vera: Browser) -> None:
    [session] = vera.console.sessions._sessions.values()
    session.streams = 8
    assert (await vera.get(f"/live/{flows.FLOW_ID}")).status_code == 429


async def test_news_are_for_those_who_are_signed_in(browser: Browser) -> None:
    assert (await browser.get(f"/live/{flows.FLOW_ID}")).status_code == 401


async def test_the_trace_is_linked_if_the_settings_say_where_it_is(api: Api, bus: NatsBus) -> None:
    await publish(bus, flows.start())
    async with browsing(api, trace_link="https://traces.example.com/{trace}") as browser:
        await browser.sign_in(api.token("vera", "viewer"))
        assert f'href="https://traces.example.com/{flows.FLOW_ID}"' in await browser.page(PATH)
