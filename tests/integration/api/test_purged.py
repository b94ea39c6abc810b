"""Calls about flows that were purged: each is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.envelope import pack
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import Choice
from tests.support import flows
from tests.support.api import Api, bearer, refused
from tests.support.mesh import Mesh, publish
from tests.support.purging import left, old_flow_id, purge, wipe_one

ROLES = ("operator", "finance", "starter")


@pytest.fixture
async def api(mesh: Mesh, api: Api) -> Api:
    """A coordinator that knows the small flow type of these tests."""
    await mesh.put(flows.template(gated=True))
    return api


def calls_about(flow_id: str) -> Mapping[str, tuple[Message, type[Any]]]:
    """Every call about one flow, by method, with the class of its answer."""
    part, digest = f"refund.{flow_id}.{flows.enriched(flow_id).address.event_id}", "a" * 64
    voted: dict[str, Any] = {"approval_id": part, "digest": digest}
    why: dict[str, Any] = {"flow_id": flow_id, "reason": "late"}
    return {
        "FlowService/GetFlow": (pb.GetFlowRequest(flow_id=flow_id), pb.GetFlowResponse),
        "FlowService/ListFlowEvents": (pb.ListFlowEventsRequest(flow_id=flow_id), pb.ListFlowEventsResponse),
        "FlowService/CancelFlow": (pb.CancelFlowRequest(**why), pb.CancelFlowResponse),
        "FlowService/CompensateFlow": (pb.CompensateFlowRequest(**why), pb.CompensateFlowResponse),
        "FlowService/RetryStep": (pb.RetryStepRequest(**why, step="enrich"), pb.RetryStepResponse),
        "FlowService/MigrateFlow": (pb.MigrateFlowRequest(**why, to_version=1), pb.MigrateFlowResponse),
        "FlowService/ResolveEscalation": (
            pb.ResolveEscalationRequest(**why, choice=Choice.CHOICE_RETRY),
            pb.ResolveEscalationResponse,
        ),
        "ApprovalService/GetApproval": (approvals.GetApprovalRequest(approval_id=part), approvals.GetApprovalResponse),
        "ApprovalService/ApproveProposal": (
            approvals.ApproveProposalRequest(**voted),
            approvals.ApproveProposalResponse,
        ),
        "ApprovalService/RejectProposal": (approvals.RejectProposalRequest(**voted), approvals.RejectProposalResponse),
        "ActService/GetAct": (acts.GetActRequest(act_id=part), acts.GetActResponse),
        "ActService/ConfirmAct": (acts.ConfirmActRequest(act_id=part, digest=digest), acts.ConfirmActResponse),
    }


CALLS = sorted(calls_about(flows.FLOW_ID))


async def purged(api: Api, bus: NatsBus, flow_id: str) -> None:
    """A flow that was purged."""
    await publish(bus, flows.start(flow_id))
    await purge(bus, api.replica.store, flow_id)


@pytest.mark.parametrize("method", CALLS)
async def test_p3_a_call_about_a_purged_flow_is_refused(api: Api, bus: NatsBus, method: str) -> None:
    await purged(api, bus, flows.FLOW_ID)
    request, answer = calls_about(flows.FLOW_ID)[method]
    refusal = await refused(api.call(method, request, answer, metadata=bearer(api.token("olga", *ROLES))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FLOW_ARCHIVED")
    assert await left(bus, flows.FLOW_ID) == []


@pytest.mark.parametrize("method", [each for each in CALLS if each.startswith("FlowService")])
async def test_p3_a_call_about_what_came_after_a_purge_is_refused(api: Api, bus: NatsBus, method: str) -> None:
    flow_id = old_flow_id()
    await purged(api, bus, flow_id)
    late = flows.enriched(flow_id)
    await publish(bus, late)
    request, answer = calls_about(flow_id)[method]
    refusal = await refused(api.call(method, request, answer, metadata=bearer(api.token("olga", *ROLES))))
    assert refusal.reason == "FLOW_ARCHIVED"
    assert [each.event for each in await left(bus, flow_id)] == [late.event]


async def test_p3_an_outcome_over_the_api_does_not_reopen_a_purged_flow(api: Api, bus: NatsBus) -> None:
    await purged(api, bus, flows.FLOW_ID)
    request = pb.PublishEventRequest(
        flow_type="refund",
        flow_id=flows.FLOW_ID,
        step="enrich",
        root="a" * 32,
        data=pack(flows.enrichment()),
        attempt=1,
        output_total=1,
    )
    token = api.token("enrichment", agent="enrichment")
    call = api.call("FlowService/PublishEvent", request, pb.PublishEventResponse, metadata=bearer(token))
    assert (await refused(call)).reason == "FLOW_ARCHIVED"
    assert await left(bus, flows.FLOW_ID) == []


async def test_p6_who_may_not_read_a_flow_type_does_not_learn_what_was_purged(api: Api, bus: NatsBus) -> None:
    await purged(api, bus, flows.FLOW_ID)
    token = api.token("vera", grants=["reader@loan"])
    request = pb.GetFlowRequest(flow_id=flows.FLOW_ID)
    call = api.call("FlowService/GetFlow", request, pb.GetFlowResponse, metadata=bearer(token))
    assert (await refused(call)).reason == "FLOW_NOT_FOUND"


async def test_p3_a_call_about_a_flow_in_hand_whose_purge_was_cut_off_is_refused(
    mesh: Mesh, api: Api, bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.mesh.streams.purged._SURELY_THERE", timedelta())
    await mesh.put(flows.template("plain"))
    flow_id = old_flow_id()
    entries = [each(flow_id, flow_type="plain") for each in (flows.start, flows.enriched, flows.notified)]
    last = await publish(bus, *entries)
    await api.replica.reconciler.flows.reaching(("plain", flow_id), last)
    await wipe_one(bus, entries[0])
    request = pb.CompensateFlowRequest(flow_id=flow_id, reason="late")
    token = api.token("olga", *ROLES)
    call = api.call("FlowService/CompensateFlow", request, pb.CompensateFlowResponse, metadata=bearer(token))
    assert (await refused(call)).reason == "FLOW_ARCHIVED"
    assert len(await left(bus, flow_id, flow_type="plain")) == 2
