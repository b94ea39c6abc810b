"""The console's pages that need an index: overview, approvals, quarantine and agents, for those who may see them."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.console.approvals import page as inbox_page
from handrail.coordinator.decide import decide
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.streams.workers import announce
from handrail.mesh.wire.subjects import Kind, quarantine_subject
from handrail.v1.decision_pb2 import ApprovalRequested
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.flow_service_pb2 import CountFlowsRequest, CountFlowsResponse
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, another_browser, browsing
from tests.support.indexed import ask, indexed_api
from tests.support.mesh import Mesh, publish
from tests.support.purging import wipe
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("patient")

STUCK, ASKED, LATE, DONE = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
AUDIT = "5" * 32
HOSTILE = "</td><script>alert(1)</script><img src=x>\u202e\u200b"
PAGES = ("/", "/flows", "/approvals?view=all", "/quarantine", "/quarantine?message=enrichment/1", "/agents")


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of flows: one is stuck, one waits for votes, one is late, one is over, one runs. A
    message is in quarantine. Texts are those of strangers.
    """
    late = timedelta(milliseconds=1)
    await mesh.put(
        flows.template(gated=True),
        flows.template("claim", gated=True),
        flows.template("audit"),
        flows.template("slow", timeout=late, attempts=3),
    )
    await ensure_quarantines(bus, mesh.catalog.all())
    await publish(bus, flows.start(LATE, flow_type="slow"))
    await publish(bus, flows.start(DONE, flow_type="audit"), flows.start(AUDIT, flow_type="audit"))
    await publish(bus, flows.enriched(DONE, flow_type="audit"), flows.notified(DONE, flow_type="audit"))
    await give_up(mesh, STUCK)
    await ask_people(mesh, ASKED)
    record = Quarantined(
        reason=ErrorReason.ERROR_REASON_CONTRACT_VIOLATION, detail=HOSTILE, subject=HOSTILE, body=HOSTILE.encode()
    )
    subject = quarantine_subject("refund", STUCK, "enrichment", "enrichment", "c" * 32)
    await bus.publish(subject, record.SerializeToString())
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api


async def give_up(mesh: Mesh, flow_id: str) -> None:
    """Has a step fail for good, so that its flow waits for a person."""
    last = await publish(mesh.bus, flows.start(flow_id), flows.failed(HOSTILE, flow_id))
    flow = await mesh.store.load("refund", flow_id, at_least=last)
    while (entry := decide(flow, datetime.now(UTC))) is not None:
        stored = await mesh.store.append(flow, entry)
        flow = await mesh.store.load("refund", flow_id, at_least=stored.sequence)


async def ask_people(mesh: Mesh, flow_id: str, flow_type: str = "refund") -> None:
    """Stores a flow that waits for approval."""
    begun = flows.start(flow_id, flow_type=flow_type)
    last = await publish(mesh.bus, begun, flows.enriched(flow_id, flow_type=flow_type, kind=Kind.PROPOSAL))
    flow = await mesh.store.load(flow_type, flow_id, at_least=last)
    (asked,) = flow.proposals.values()
    request = ApprovalRequested(proposal_id=asked.recorded.event_id, digest=asked.digest)
    entry = flows.decision(request, flow_id=flow_id, flow_type=flow_type, about="x", based_on=flow.last_sequence)
    await mesh.store.append(flow, entry)


@pytest.fixture
async def vera(api: Api) -> AsyncIterator[Browser]:
    """A browser in which somebody is signed in who may see everything."""
    async with browsing(api) as browser:
        await browser.sign_in(api.token("vera", "viewer"))
        yield browser


def rows(page: str) -> list[str]:
    """The names of the rows that a page follows."""
    return re.findall(r'<tr data-row="([^"]*)"', page)


async def test_the_overview_says_what_needs_a_person_the_longest_wait_first(vera: Browser) -> None:
    async def page() -> str:
        return await vera.page("/")

    text = await eventually(page, lambda text: f"Overdue {LATE}" in text)
    waiting = [each for each in rows(text) if each.split()[0] in ("Stuck", "Approval", "Overdue", "Quarantine")]
    assert waiting == [f"Overdue {LATE}", f"Stuck {STUCK}", f"Approval {ASKED}", "Quarantine enrichment"]
    assert 'href="/flows?filter=flow_type%20%3D%20refund%20status%20%3D%20ESCALATED">1</a>' in text
    assert "lists: complete" in text
    assert "the coordinator is healthy" in text


async def test_an_agent_with_many_messages_in_quarantine_hides_no_other(vera: Browser, bus: NatsBus) -> None:
    record = Quarantined(reason=ErrorReason.ERROR_REASON_CONTRACT_VIOLATION, subject="x").SerializeToString()
    for number in range(10):
        await bus.publish(quarantine_subject("refund", STUCK, "enrichment", "enrichment", f"{number:032x}"), record)
    await bus.publish(quarantine_subject("refund", STUCK, "notification", "notification", "d" * 32), record)
    found = rows(await vera.page("/"))
    assert {"Quarantine enrichment", "Quarantine notification"} <= set(found)


async def test_the_overview_counts_acts_that_wait_for_a_second_person(vera: Browser) -> None:
    page = await vera.page("/")
    assert re.search(r'<span class="count">0</span> <span class="muted"><span aria-hidden="true">◑</span> Second', page)


async def test_the_overview_counts_what_failed_lately(vera: Browser, api: Api) -> None:
    page = await vera.page("/")
    assert [each for each in rows(page) if each.startswith("failure ")]
    assert "Refused" in page
    async with another_browser(vera) as audrey:
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        assert "Refused" not in await audrey.page("/")


async def test_the_overview_shows_how_many_flows_began_by_hour(vera: Browser, api: Api) -> None:
    page = await vera.page("/")
    assert re.search(r'<svg class="spark"[^>]* role="img" aria-label="2 began in 24 hours, most of them', page)
    async with another_browser(vera) as audrey:
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        assert (await audrey.page("/")).count('<svg class="spark"') == 1


async def test_from_the_overview_a_click_leads_to_a_stuck_flow_and_why_it_is_stuck(vera: Browser) -> None:
    page = await vera.page("/")
    assert f'href="/flows/{STUCK}"' in page
    assert "A person must decide" in await vera.page(f"/flows/{STUCK}")


async def test_the_list_says_what_each_flow_waits_for(vera: Browser) -> None:
    page = await vera.page("/flows?filter=flow_type+!%3D+audit")
    for flow_id, wait in ((STUCK, "operator: enrich"), (ASKED, "votes: enrich"), (LATE, "enrichment: enrich")):
        row = page[page.index(f'<tr data-row="{flow_id}"') :].partition("</tr>")[0]
        assert wait in row


async def test_filters_are_completed_by_the_words_of_the_templates_that_a_person_may_see(
    vera: Browser, api: Api
) -> None:
    words = (await vera.get("/completion")).json()
    assert words["flow_type"]["values"] == ["audit", "claim", "refund", "slow"]
    assert words["agent"]["values"] == ["enrichment", "notification"]
    async with another_browser(vera) as audrey:
        assert (await audrey.get("/completion")).status_code == 401
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        assert (await audrey.get("/completion")).json()["flow_type"]["values"] == ["audit"]


@pytest.mark.parametrize("path", PAGES)
async def test_what_strangers_sent_is_text_on_every_page(vera: Browser, path: str) -> None:
    page = await vera.page(path)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert not re.search("[\u202e\u200b]", page)
    assert page.count("<script") == 1
    assert len(page.encode()) < 100_000
    for wrong in ("style=", "<style", "onclick", "javascript:"):
        assert wrong not in page


async def test_flows_are_counted_by_type_and_status(api: Api) -> None:
    async def counted(*grants: str, **fields: str) -> dict[tuple[str, int], int]:
        request = CountFlowsRequest(**fields)
        answer = await ask(api, "FlowService/CountFlows", request, CountFlowsResponse, *grants)
        assert answer.HasField("as_of")
        return {(each.flow_type, each.status): each.flows for each in answer.counts}

    everything = await counted()
    assert sum(everything.values()) == 5
    assert {name for name, _ in everything} == {"refund", "audit", "slow"}
    assert await counted("reader@audit") == {key: flows for key, flows in everything.items() if key[0] == "audit"}
    assert await counted(filter="stuck") == {key: flows for key, flows in everything.items() if key[1] == 3}
    assert await counted("reader@other") == {}


async def test_nobody_sees_what_the_token_does_not_show(vera: Browser, api: Api) -> None:
    async with another_browser(vera) as audrey:
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        for path in ("/", "/approvals?view=all", "/agents"):
            page = await audrey.page(path)
            for hidden in (STUCK, ASKED, LATE, "refund", "Quarantine enrichment"):
                assert hidden not in page, path
        assert (await audrey.get("/quarantine")).status_code == 403
        gone = await audrey.get(await approval_path(vera))
        assert gone.status_code == 404


async def approval_path(browser: Browser) -> str:
    """The address of the approval in the inbox."""
    found = re.search(r'href="(/approvals\?[^"]*approval=[^"#]*)', await browser.page("/approvals?view=all"))
    assert found is not None
    return html.unescape(found[1])


async def test_the_inbox_shows_who_has_to_vote_on_what(vera: Browser, api: Api) -> None:
    page = await vera.page("/approvals")
    assert "250.00 EUR" in page
    assert "0/1" in page
    assert "Waits for others." in page
    async with another_browser(vera) as anna:
        await anna.sign_in(api.token("anna", "finance"))
        page = await anna.page("/approvals")
        assert re.search(r'aria-current="page">Mine <span class="muted">1<', page)
        assert re.search(r">Role finance <span class=\"muted\">1<", page)
        assert "Waits for you." in page
        command = re.search(r"handrail approval approve refund\.2{32}\.[0-9a-f]{32} --digest [0-9a-f]{64}", page)
        assert command is not None


async def test_an_approval_has_an_address_and_says_what_happens_otherwise(vera: Browser) -> None:
    page = await vera.page(await approval_path(vera))
    assert "if nobody answers, it counts as refused" in page
    assert "chargebackId" in page
    assert 'class="inbox has-choice"' in page
    for wrong in ("/approvals?approval=x", f"/approvals?approval=refund.{ASKED}.{'0' * 32}"):
        assert (await vera.get(wrong)).status_code == 404


async def test_an_inbox_without_anything_for_a_person_says_so(vera: Browser, api: Api) -> None:
    page = await vera.page("/approvals?view=mine")
    assert "Nothing waits for you. 1 wait for others." in page
    async with another_browser(vera) as audrey:
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        assert "No approval waits." in await audrey.page("/approvals")


async def test_what_waits_for_a_person_is_found_behind_what_waits_longer_for_others(
    vera: Browser, api: Api, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_page, "_PAGE", 1)
    for number in range(2):
        await ask_people(mesh, f"{number + 6}" * 32, "claim")
    async with another_browser(vera) as sally:
        await sally.sign_in(api.token("sally", grants=["reader@*", "approver.finance@claim"]))

        async def page() -> str:
            return await sally.page("/approvals")

        text = await eventually(page, lambda text: "Nothing waits" not in text and "Waits for you." in text)
        assert rows(text)[0].startswith("claim.")
        monkeypatch.setattr(inbox_page, "_MOST", 1)
        text = await sally.page("/approvals?view=mine")
        assert "Nothing waits for you. 1 wait for others." in text
        assert "Of 3 approvals, the 1 that wait the longest are read here." in text


async def test_the_inbox_is_shown_if_its_first_flow_can_not_be_read(vera: Browser, bus: NatsBus) -> None:
    path = await approval_path(vera)
    await wipe(bus, ASKED)
    page = await vera.page("/approvals?view=all")
    assert rows(page)
    assert 'class="inbox-detail"><p class="notice bad"' in page
    assert (await vera.get(path)).status_code == 404


async def test_a_wrong_filter_of_the_inbox_is_said(vera: Browser) -> None:
    answer = await vera.get("/approvals?filter=stats+%3D+x")
    assert answer.status_code == 400
    assert "did you mean status?" in answer.text


async def test_a_quarantined_message_is_shown_with_its_bytes(vera: Browser) -> None:
    page = await vera.page("/quarantine")
    assert rows(page) == ["enrichment/1"]
    assert "CONTRACT_VIOLATION" in page
    detail = await vera.page("/quarantine?message=enrichment/1")
    assert "0000  3c 2f 74 64 3e 3c 73 63" in detail
    assert f'href="/flows/{STUCK}"' in detail
    assert "Nothing is in quarantine of notification." in await vera.page("/quarantine?agent=notification")
    for wrong in ("x", "enrichment/0", "enrichment/99", "../1", "9" * 30):
        assert (await vera.get(f"/quarantine?message={wrong}")).status_code == 404


async def test_agents_are_listed_with_what_waits_for_them(vera: Browser) -> None:
    page = await vera.page("/agents")
    assert set(rows(page)) == {"enrichment", "notification"}
    assert "Nobody listens" in page
    assert 'href="/templates/refund"' in page
    assert '<caption class="sr">Agents; those with work that nobody takes first</caption>' in page


async def test_what_workers_say_is_shown_as_text_and_as_their_word(vera: Browser, bus: NatsBus) -> None:
    state = WorkerState(
        versions=[WorkerVersion(flow_type="refund", version=1, problem=HOSTILE)], stuck=[f"handler {HOSTILE}"]
    )
    await announce(bus, "notification", "a" * 32, state)

    async def page() -> str:
        return await vera.page("/agents")

    text = await eventually(page, lambda text: "Said by workers" in text)
    assert "None fits" in text
    assert "1 handler does not end" in text
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "Nobody checks what they say." in text
