"""Failures are counted by what they have in common, and shown to those who may read their flows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import FailureSummary, ListFailuresRequest, ListFailuresResponse
from tests.support import flows
from tests.support.api import Api, refused
from tests.support.forged import failed
from tests.support.indexed import ask, indexed_api
from tests.support.mesh import Mesh, publish

pytestmark = pytest.mark.usefixtures("patient")

METHOD = "FlowService/ListFailures"
REFUNDS = 4


def failure(flow: str, flow_type: str, error_class: str, text: str) -> Entry:
    """The first attempt of the first step failed."""
    message = StepFailed(error_class=error_class, text=text, retryable=True)
    entry = failed(flow, "enrichment", "enrich", root=ids.start_id(flow))
    entry.event.flow_type = flow_type
    entry.event.data.CopyFrom(pack(message))
    address = entry.address._replace(flow_type=flow_type, message_type=StepFailed.DESCRIPTOR.full_name)
    return Entry(address, entry.event)


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of flows whose first step failed: for the same reason, but for one."""
    await mesh.put(flows.template())
    await mesh.put(flows.template("audit"))
    for number in range(REFUNDS):
        flow = f"{number:032x}"
        await publish(bus, flows.start(flow), failure(flow, "refund", "TimeOut", f"no answer within {number + 3} s"))
    last = f"{REFUNDS:032x}"
    await publish(bus, flows.start(last), failure(last, "refund", "Refused", "account is \x1b[31mclosed"))
    audit = f"{99:032x}"
    await publish(bus, flows.start(audit, flow_type="audit"), failure(audit, "audit", "Refused", "no such account"))
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api


async def listed(api: Api, *grants: str, **fields: object) -> ListFailuresResponse:
    request = ListFailuresRequest(**fields)  # type: ignore[arg-type]
    answer: ListFailuresResponse = await ask(api, METHOD, request, ListFailuresResponse, *grants)
    return answer


def counted(found: ListFailuresResponse) -> list[tuple[str, str, str, int]]:
    return [(each.flow_type, each.error_class, each.text, each.count) for each in found.failures]


async def test_failures_are_counted_by_what_they_have_in_common(api: Api) -> None:
    found = await listed(api)
    often: FailureSummary = found.failures[0]
    assert counted(found)[0] == ("refund", "TimeOut", "no answer within <number> s", REFUNDS)
    assert (often.step, often.flow_id, len(often.signature)) == ("enrich", f"{REFUNDS - 1:032x}", 32)
    assert often.first_time.ToDatetime() < often.last_time.ToDatetime()
    assert [each[3] for each in counted(found)] == [REFUNDS, 1, 1]
    assert not found.more
    assert found.as_of.sequence == 2 * (REFUNDS + 2)


async def test_the_rest_is_told_of(api: Api) -> None:
    found = await listed(api, limit=2)
    assert found.more
    assert counted(found) == counted(await listed(api))[:2]


async def test_failures_are_chosen_by_flow_type_time_and_filter(api: Api) -> None:
    everything = await listed(api)
    assert counted(await listed(api, flow_type="audit")) == [("audit", "Refused", "no such account", 1)]
    assert len((await listed(api, filter="error_class = Refused")).failures) == 2
    newest = max(each.last_time.ToNanoseconds() for each in everything.failures)
    since = next(each.last_time for each in everything.failures if each.last_time.ToNanoseconds() == newest)
    assert counted(await listed(api, since=since)) == [("audit", "Refused", "no such account", 1)]
    assert (await refused(listed(api, filter="no such ="))).reason == "BAD_FILTER"


async def test_the_command_shows_them(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HANDRAIL_TOKEN", api.token("vera", "viewer"))
    monkeypatch.setenv("HANDRAIL_ADDRESS", api.address)
    assert await asyncio.to_thread(main, ["failure", "list", "--type", "refund"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^4 +refund +enrich +TimeOut +no answer within <number> s ", shown, re.MULTILINE)
    assert "\x1b" not in shown
    assert await asyncio.to_thread(main, ["failure", "list", "--limit", "1", "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["failures"][0]["count"], document["more"]) == (4, True)
    assert await asyncio.to_thread(main, ["failure", "list", "--type", "nothing"]) == 0
    assert capsys.readouterr().out.startswith("No failures.\n")


async def test_failures_of_other_flow_types_are_left_out(api: Api) -> None:
    assert [each[0] for each in counted(await listed(api, "reader@audit"))] == ["audit"]
    assert counted(await listed(api, "reader@refund", flow_type="audit")) == []
