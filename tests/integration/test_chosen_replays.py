"""A replay of flows that the index chooses is the replay of just these flows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from handrail.mesh.bus import NatsBus
from handrail.v1.flow_service_pb2 import ListFlowsRequest, ListFlowsResponse
from handrail.v1.template_service_pb2 import ReplayDifference, ReplayPolicyRequest, ReplayPolicyResponse, ReplaySummary
from handrail.visibility.index.database import open_engine
from tests.support import flows
from tests.support.api import Api, bearer, refused, running_api
from tests.support.indexed import indexed_api, pages
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import REFUND, record, refund_template

FLOWS = 60
ASKS_MORE = """
  - name: every_refund
    on: payments.v1.SmallRefundGranted
    approvers: {roles: [finance], quorum: 1}
    expires_after: 14400s
"""


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of refunds, and of an audit."""
    engine = open_engine(f"sqlite:///{tmp_path}/index.db")
    await mesh.put(refund_template())
    await mesh.put(flows.template("audit"))
    await record(bus, FLOWS, seed=5)
    await publish(bus, flows.start(flow_type="audit"))
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api
    engine.dispose()


async def replayed(api: Api, given: str, *grants: str) -> tuple[ReplaySummary, set[bytes]]:
    """The summary and the differences of a replay with a filter."""
    changed = refund_template(REFUND.read_text().replace("version: 1", "version: 2") + ASKS_MORE)
    request = ReplayPolicyRequest(template=changed.proto, descriptors=changed.descriptor_set, filter=given)
    rpc = api.channel.unary_stream(
        "/handrail.v1.TemplateService/ReplayPolicy",
        request_serializer=ReplayPolicyRequest.SerializeToString,
        response_deserializer=ReplayPolicyResponse.FromString,
    )
    token = api.token("tom", grants=grants or ("template_admin@*",))
    differences: set[bytes] = set()
    summary = ReplaySummary()
    async for response in rpc(request, metadata=bearer(token)):
        if response.WhichOneof("result") == "difference":
            differences.add(response.difference.SerializeToString())
        elif response.WhichOneof("result") == "summary":
            summary = response.summary
    return summary, differences


async def test_a_filter_chooses_the_flows_of_a_replay(api: Api) -> None:
    everything, differences = await replayed(api, "")
    assert everything.flows == FLOWS
    assert differences
    assert await replayed(api, "messages > 0", "template_admin@refund") == (everything, differences)
    request = ListFlowsRequest(flow_type="refund", filter="messages > 5", page_size=50)
    listed = await pages(api, "FlowService/ListFlows", request, ListFlowsResponse, "flows")
    some, fewer = await replayed(api, "messages > 5")
    assert 0 < some.flows == len(listed) < FLOWS
    assert some.messages == sum(each.message_count for each in listed)
    chosen = {each.flow_id for each in listed}
    assert fewer == {each for each in differences if ReplayDifference.FromString(each).flow_id in chosen}


async def test_a_filter_needs_an_index(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, decides=False) as api:
        refusal = await refused(replayed(api, "messages > 0"))
        assert refusal.reason == "NO_INDEX"


async def test_a_wrong_filter_of_a_replay_is_refused(api: Api) -> None:
    refusal = await refused(replayed(api, "messages > many"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER")
