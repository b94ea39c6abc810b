"""Ids say nothing of the flow type: what an agent of another type publishes under the same ids hides no flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.coordinator.api.authorization import set_caller
from handrail.coordinator.api.flow_lookup import Finder
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flow_pb
from tests.integration.api.test_access import OURS, THEIRS, Walk, target
from tests.support import flows
from tests.support.api import Refusal, running_api
from tests.support.mesh import Mesh, publish


@pytest.fixture
async def walk(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Walk]:
    """A flow that waits for approval, and afterwards the same messages under another flow type."""
    async with running_api(bus, tmp_path, decides=False) as api:
        mesh = Mesh(bus, api.replica.catalog)
        await mesh.put(*(flows.template(name, gated=True) for name in (OURS, THEIRS)))
        ours = await target(mesh, OURS, "a" * 32)
        decoys = (
            flows.start(ours.flow_id, flow_type=THEIRS),
            flows.enriched(ours.flow_id, flow_type=THEIRS, kind=Kind.PROPOSAL),
        )
        await publish(bus, *decoys)
        yield Walk(api, ours, ours)


@pytest.mark.parametrize("grant", [f"operator@{OURS}", "operator@*"])
async def test_p7_a_flow_is_found_though_another_type_uses_its_id(walk: Walk, grant: str) -> None:
    request = flow_pb.GetFlowRequest(flow_id=walk.ours.flow_id)
    answer = await walk.call("/handrail.v1.FlowService/GetFlow", request, grant)
    assert isinstance(answer, flow_pb.GetFlowResponse)
    assert answer.flow.flow_type == OURS


@pytest.mark.parametrize("grant", [f"approver.finance@{OURS}", "approver.finance@*"])
async def test_p6_an_approval_is_found_though_another_type_uses_its_id(walk: Walk, grant: str) -> None:
    request = approvals.GetApprovalRequest(approval_id=walk.ours.approval_id)
    answer = await walk.call("/handrail.v1.ApprovalService/GetApproval", request, grant)
    assert isinstance(answer, approvals.GetApprovalResponse)
    assert answer.approval.flow_type == OURS


async def test_who_reads_the_other_type_alone_does_not_see_the_flow(walk: Walk) -> None:
    request = approvals.GetApprovalRequest(approval_id=walk.ours.approval_id)
    answer = await walk.call("/handrail.v1.ApprovalService/GetApproval", request, f"approver.finance@{THEIRS}")
    assert isinstance(answer, Refusal)
    assert answer.reason == "APPROVAL_NOT_FOUND"


async def test_p6_an_approval_is_found_by_a_coordinator_that_has_read_no_template_yet(walk: Walk, bus: NatsBus) -> None:
    set_caller(Caller("anna", of_roles(("approver.finance",))), "/handrail.v1.ApprovalService/GetApproval")
    finder = Finder(bus, FlowStore(bus, Catalog(bus)))
    assert (await finder.proposal(walk.ours.approval_id)).flow_type == OURS


async def test_p7_a_flow_is_found_by_a_coordinator_that_has_read_no_template_yet(walk: Walk, bus: NatsBus) -> None:
    set_caller(Caller("anna", of_roles(("viewer",))), "/handrail.v1.FlowService/GetFlow")
    finder = Finder(bus, FlowStore(bus, Catalog(bus)))
    assert (await finder.flow(walk.ours.flow_id)).flow_type == OURS
