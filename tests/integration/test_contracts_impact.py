"""A change that breaks a contract, in a branch of a scratch clone: `make breaking` refuses it, and `contracts impact`
names the agents, the templates and the running flows that it hits. A compatible change passes both.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.buf import Buf
from handrail.cli.exit_codes import Exit
from handrail.mesh.bus import NatsBus
from handrail.mesh.contracts import Contracts, pack
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.durables import agent_durable
from handrail.mesh.template import Template, load_yaml
from handrail.v1 import flow_service_pb2, template_service_pb2
from tests.contract.scratch import clone, commit, edit, git, make
from tests.support import flows
from tests.support.api import Api, bearer, running_api
from tests.support.dev import handrail
from tests.support.shop import set_of, shop_file
from tests.support.waiting import eventually

PAYMENTS = Path("proto/payments/v1/payments.proto")
RISK = r"^  Risk risk = 4 \[\(buf\.validate\.field\)\.enum = \{\n.*\n.*\n  \}\];\n"
FLOWS = 12


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(bus, tmp_path / "coordinator") as api:
        yield api


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = clone(tmp_path / "clone")
    git(folder, "switch", "--quiet", "--create", "change")
    monkeypatch.chdir(folder)
    return folder


async def put(api: Api, template: Template) -> None:
    metadata = bearer(api.token("olga", "operator"))
    stored = template_service_pb2.PutTemplateRequest(template=template.proto, descriptors=template.descriptor_set)
    named = template_service_pb2.ActivateTemplateRequest(name=template.name, version=template.version)
    await api.call("TemplateService/PutTemplate", stored, template_service_pb2.PutTemplateResponse, metadata=metadata)
    response = template_service_pb2.ActivateTemplateResponse
    await api.call("TemplateService/ActivateTemplate", named, response, metadata=metadata)


async def start(api: Api, number: int) -> None:
    request = flow_service_pb2.StartFlowRequest(flow_type="refund", key=f"cb-{number}", data=pack(flows.received()))
    metadata = bearer(api.token("olga", "operator"))
    await api.call("FlowService/StartFlow", request, flow_service_pb2.StartFlowResponse, metadata=metadata)


async def impact(api: Api, *arguments: str) -> tuple[int, str]:
    """The command, in a thread: it waits for a coordinator that runs in this one."""
    env = {"HANDRAIL_TOKEN": api.token("vera", "viewer")}
    done = await asyncio.to_thread(
        handrail, "contracts", "impact", "--scan", "--address", api.address, *arguments, env=env
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


async def report(api: Api, *arguments: str) -> tuple[int, Any]:
    code, text = await impact(api, *arguments, "--output", "json")
    return code, json.loads(text)


async def test_a_breaking_change_names_agents_templates_and_running_flows(api: Api, project: Path) -> None:
    began = datetime.now(UTC)
    await put(api, flows.template(version=1))
    await asyncio.gather(*(start(api, number) for number in range(FLOWS)))
    await put(api, flows.template(version=2))
    await start(api, FLOWS)
    pull = await api.replica.bus.pull(FLOW, agent_durable("notification"), in_flight=5, on_delivery=lambda each: None)
    edit(project / PAYMENTS, RISK, "")
    commit(project, "Forget the risk")

    status, said = make("breaking", project)
    assert status != 0
    assert '"risk" on message "ChargebackEnriched" was deleted' in said

    async def worker_waits() -> bool:
        same = ("--against", "gen/released.binpb", "--contracts", "gen/released.binpb")  # quick: nothing is built
        live = (await report(api, *same))[1]["usage"]["agents"]
        return bool({each["agent"]: each for each in live}["notification"]["waitingPulls"])

    await eventually(worker_waits)
    for against in ("main", "gen/released.binpb", "LIVE"):
        code, found = await report(api, "--against", against)
        assert code == Exit.FAILED
        (change,) = [each for each in found["changes"] if each["level"] == "BREAKING_WIRE"]
        assert change["name"] == "payments.v1.ChargebackEnriched.risk"
        hits = {(hit["template"], hit["version"]): hit for hit in change["hits"] if hit["origin"] == "stored"}
        assert sorted(hits) == [("refund", 1), ("refund", 2)]
        assert all(hit["agents"] == ["enrichment", "notification"] for hit in hits.values())
        assert change["runningFlows"] == FLOWS + 1
        old, new = found["usage"]["versions"]
        assert (old["runningFlows"], old["active"], new["runningFlows"], new["active"]) == (FLOWS, False, 1, True)
        drained = datetime.fromisoformat(old["lastEnd"])
        assert began + timedelta(hours=1) <= drained <= datetime.now(UTC) + timedelta(hours=1)

    code, text = await impact(api, "--against", "LIVE")
    assert code == Exit.FAILED
    assert f"affected: 2 agents, 2 template versions, {FLOWS + 1} running flows" in text
    assert f"refund@1: {FLOWS} flows run, the oldest since " in text
    assert "agent notification: live; 0 messages pending" in text
    assert "agent enrichment: no worker asks for work; 13 messages pending" in text
    code, text = await impact(api, "--against", "main", "--output", "markdown")
    assert f"- refund@1: {FLOWS} flows run" in text
    assert "new flows still start with it: once another version is active, it drains within 1 h" in text
    await pull.stop()


async def test_a_compatible_change_passes_both(api: Api, project: Path) -> None:
    await put(api, flows.template())
    await start(api, 0)
    edit(project / PAYMENTS, r"^message RefundPaid \{\n", "message RefundPaid {\n  // note.\n  string note = 99;\n")
    commit(project, "Add a note")
    assert make("breaking", project)[0] == 0
    for against in ("main", "LIVE"):
        code, text = await impact(api, "--against", against)
        assert (code, "0 breaking" in text) == (Exit.OK, True)


async def test_a_count_that_stopped_early_says_so(api: Api, project: Path) -> None:
    await put(api, flows.template())
    await asyncio.gather(*(start(api, number) for number in range(3)))
    _, found = await report(api, "--against", "main", "--max-flows", "2")
    assert found["usage"]["stoppedEarly"]
    assert found["usage"]["versions"][0]["runningFlows"] == 2
    assert any("--max-flows" in note for note in found["notes"])


async def test_versions_that_were_stored_with_other_contracts_are_each_compared_with_their_own(
    api: Api, project: Path
) -> None:
    """LIVE: what is compared is what a version was stored with, not what the last release had."""
    await put(api, flows.template())
    code, found = await report(api, "--against", "LIVE")
    assert (code, found["worst"]) == (Exit.OK, "COMPATIBLE")
    edit(project / PAYMENTS, r"^  // Many chargebacks before\.\n  RISK_HIGH = 3;\n", "")
    code, found = await report(api, "--against", "LIVE")
    (change,) = [each for each in found["changes"] if each["level"] != "COMPATIBLE"]
    assert (code, change["code"], change["member"]) == (Exit.FAILED, "ENUM_VALUE_REMOVED", "RISK_HIGH")
    assert change["messages"] == ["payments.v1.ChargebackEnriched"]


async def test_an_rpc_that_the_coordinator_serves_and_the_project_has_no_more_breaks_its_clients(
    api: Api, project: Path
) -> None:
    """LIVE: clients of the API are in no template, and nobody can see them."""
    await put(api, flows.template())
    consumers = project / "contracts/consumers.yaml"
    consumers.parent.mkdir(exist_ok=True)
    consumers.write_text(
        "consumers: [{name: helpdesk, contact: help@example.com, calls: [handrail.v1.FlowService.CancelFlow]}]"
    )
    edit(project / "proto/handrail/v1/flow_service.proto", r"^  rpc CancelFlow\([^}]*\}\n", "")
    code, found = await report(api, "--against", "LIVE")
    (change,) = found["changes"]
    assert (code, change["code"], change["level"]) == (Exit.FAILED, "RPC_REMOVED", "BREAKING_WIRE")
    assert (change["calls"], change["hits"]) == (["handrail.v1.FlowService.CancelFlow"], [])
    assert [each["name"] for each in change["consumers"]] == ["helpdesk"]
    code, text = await impact(api, "--against", "LIVE")
    assert "clients of 1 RPC, 1 consumer" in text
    assert "consumer helpdesk   calls handrail.v1.FlowService.CancelFlow; tell help@example.com" in text


async def test_an_rpc_of_the_projects_own_is_compared_where_its_file_is_stored_and_named_where_it_is_not(
    api: Api, project: Path
) -> None:
    service = """
// Desk asks.
service Desk {
  // Ask asks.
  rpc Ask(AskRequest) returns (AskResponse);
}
// AskRequest asks.
message AskRequest {}
// AskResponse answers.
message AskResponse {}
"""
    await put(api, flows.template())
    with (project / PAYMENTS).open("a") as file:
        file.write(service)
    code, found = await report(api, "--against", "LIVE")
    assert (code, found["worst"]) == (Exit.OK, "COMPATIBLE")
    unseen = "service payments.v1.Desk: the coordinator neither serves nor stores it"
    assert any(note.startswith(unseen) for note in found["notes"])
    stored = await asyncio.to_thread(Buf(project).build)
    text = load_yaml((project / "agents/demos/payments/refund.yaml").read_text())
    text.version = 2
    await put(api, Template.compile(text, Contracts.from_descriptor_set(stored)))
    edit(project / PAYMENTS, re.escape(service[: service.index("// AskRequest")]), "")
    code, found = await report(api, "--against", "LIVE")
    assert code == Exit.FAILED
    assert ["payments.v1.Desk.Ask"] in [each["calls"] for each in found["changes"] if each["code"] == "SERVICE_REMOVED"]


async def test_a_project_whose_only_file_is_gone_is_not_taken_for_another_project(api: Api, project: Path) -> None:
    await put(api, flows.template())
    (project / PAYMENTS).unlink()
    code, found = await report(api, "--against", "LIVE")
    assert code == Exit.FAILED
    assert {each["code"] for each in found["changes"]} >= {"MESSAGE_REMOVED", "ENUM_REMOVED"}


async def test_templates_of_other_projects_are_left_alone(api: Api, project: Path) -> None:
    """LIVE: a coordinator may serve several projects; what this one never had is not missing here."""
    proto = shop_file({"Asked": {"amount": "int64"}, "Done": {}})
    text = """{name: order, version: 1, starts_with: [shop.v1.Asked], completes_with: [shop.v1.Done], deadline: 60s,
        steps: [{name: do, agent: doing, after: [shop.v1.Asked], emits: [shop.v1.Done], effect: NONE, timeout: 9s}]}"""
    await put(api, Template.compile(load_yaml(text), Contracts.from_descriptor_set(set_of(proto))))
    code, found = await report(api, "--against", "LIVE")
    assert (code, found["changes"]) == (Exit.OK, [])
    assert found["notes"] == ["order@1: none of its contracts belong to this project", *found["notes"][1:]]
