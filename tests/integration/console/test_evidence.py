"""The evidence of a flow, downloaded from its page: whole, and for those alone who may see it."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from handrail.analysis.evidence import lines_of, verify
from handrail.console.flow import evidence
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.wire.subjects import Kind
from tests.support import flows
from tests.support.api import Api
from tests.support.console import Browser, another_browser
from tests.support.mesh import publish
from tests.support.waiting import eventually

PATH = f"/evidence/{flows.FLOW_ID}"


@pytest.fixture
async def asked(vera: Browser, api: Api, bus: NatsBus) -> Browser:
    """A browser of one who may see a flow whose proposal waits for people. Somebody sent what can't be read."""
    await api.replica.catalog.put(flows.stored(flows.template(gated=True)))
    await ensure_quarantines(bus, api.replica.catalog.all())
    await publish(bus, flows.start(), flows.enriched(kind=Kind.PROPOSAL))
    await bus.publish(f"flow.refund.{flows.FLOW_ID}.event.enrichment.{'e' * 32}.x.Odd", b"\xff<script>")

    async def page() -> str:
        return (await vera.get(f"/flows/{flows.FLOW_ID}")).text

    await eventually(page, lambda text: "must approve" in text)
    return vera


async def document(browser: Browser) -> dict[str, Any]:
    answer = await browser.get(PATH)
    assert answer.status_code == 200, answer.text
    verify(lines_of(io.BytesIO(answer.content)))
    found: dict[str, Any] = json.loads(answer.content)
    return found


async def test_the_page_of_a_flow_leads_to_its_evidence(asked: Browser) -> None:
    assert f'<a href="{PATH}" download>Download evidence</a>' in await asked.page(f"/flows/{flows.FLOW_ID}")
    answer = await asked.get(PATH)
    assert answer.headers["content-disposition"] == f'attachment; filename="{flows.FLOW_ID}.evidence.json"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["cache-control"] == "no-store"


async def test_evidence_has_every_message_and_says_what_it_could_not_get(asked: Browser) -> None:
    found = await document(asked)
    assert found["export"]["by"] == "vera"
    assert found["flow"]["status"] == "FLOW_STATUS_WAITING_APPROVAL"
    kinds = [each["kind"] for each in found["messages"]]
    assert kinds[:3] == ["EVENT", "PROPOSAL", "EVENT"]
    assert "void" in found["messages"][2]
    assert "payloadBytes" not in found["messages"][2]
    assert any("can't be read as an event" in each for each in found["withheld"])


async def test_nobody_downloads_what_the_token_does_not_show(asked: Browser, api: Api) -> None:
    assert (await asked.get("/evidence/x")).status_code in (400, 404)
    async with another_browser(asked) as audrey:
        assert (await audrey.get(PATH)).status_code == 303
        await audrey.sign_in(api.token("audrey", grants=["reader@audit"]))
        refused = await audrey.get(PATH)
        assert refused.status_code == 404
        assert "payments.v1" not in refused.text


async def test_one_person_downloads_one_file_at_a_time_and_keeps_no_place_from_others(
    asked: Browser, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, put = threading.Event(), threading.Event(), evidence._put

    def held(*arguments: Any) -> None:
        begun.set()
        assert go.wait(60)
        put(*arguments)

    monkeypatch.setattr(evidence, "_put", held)
    first = asyncio.create_task(asked.get(PATH))
    assert await asyncio.to_thread(begun.wait, 60)
    busy = await asked.get(PATH)
    assert (busy.status_code, "You download evidence just now" in busy.text) == (503, True)
    async with another_browser(asked) as anna:
        await anna.sign_in(api.token("anna", "viewer"))
        second = asyncio.create_task(anna.get(PATH))
        go.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]
    assert (await asked.get(PATH)).status_code == 200


async def test_a_download_goes_on_with_the_token_that_its_session_has_then(
    asked: Browser, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    [session] = asked.console.sessions._sessions.values()
    put = evidence._put

    def renewed(*arguments: Any) -> None:
        # Were the first token asked with again, the answer would be all there is.
        session.token = "e30.e30.e30"
        put(*arguments)

    monkeypatch.setattr(evidence, "_put", renewed)
    assert (await asked.get(PATH)).status_code == 303


async def test_as_many_files_as_may_be_written_at_a_time_and_no_more(
    asked: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = asyncio.Semaphore(1)
    monkeypatch.setattr(evidence, "_AT_ONCE", one)
    async with one:
        busy = await asked.get(PATH)
    assert (busy.status_code, "Try again in a moment" in busy.text) == (503, True)
    assert await document(asked)
    assert (await asked.get("/evidence/" + "0" * 32)).status_code == 404
    assert not one.locked(), "what failed takes no place"
    monkeypatch.setattr(evidence, "LARGEST", 1_000)
    large = await asked.get(PATH)
    assert (large.status_code, "handrail flow evidence" in large.text) == (413, True)
    assert not one.locked()


async def test_a_console_that_can_not_write_its_file_says_so_and_keeps_no_place_taken(
    asked: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = asyncio.Semaphore(1)
    monkeypatch.setattr(evidence, "_AT_ONCE", one)
    with monkeypatch.context() as broken:
        broken.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        failed = await asked.get(PATH)
    assert (failed.status_code, "No such file or directory" in failed.text) == (503, True)
    with monkeypatch.context() as broken:
        broken.setattr(tempfile, "TemporaryFile", lambda **_: io.BufferedWriter(io.FileIO("/dev/full", "w")))
        full = await asked.get(PATH)
    assert (full.status_code, "No space left on device" in full.text) == (503, True)
    assert not one.locked()
    assert await document(asked)
