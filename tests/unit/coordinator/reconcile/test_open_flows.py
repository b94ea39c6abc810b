"""Who poses as the index keeps the sweep from nothing, and has it read nothing that is no flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from handrail.coordinator.lists.index import Unavailable
from handrail.coordinator.reconcile.open_flows import OpenFlows
from handrail.index.v1.index_service_pb2 import ListOpenFlowsRequest, ListOpenFlowsResponse, OpenFlow
from handrail.v1.listing_pb2 import AsOf
from tests.support.flows import FLOW_ID


class Posing:
    """Gives these answers, one after the other."""

    questions: Any = None

    def __init__(self, *answers: Sequence[OpenFlow], more: bool = False) -> None:
        self._answers = iter(answers)
        self._more = more
        self.questions = self
        self.ListOpenFlows = None

    async def ask(self, method: None, request: ListOpenFlowsRequest) -> ListOpenFlowsResponse:
        flows = next(self._answers)
        return ListOpenFlowsResponse(flows=flows, more=self._more, stream_created="now", as_of=AsOf(sequence=100))


async def listed(index: Posing) -> list[tuple[str, str, int]]:
    pages = OpenFlows(None, index).pages(stream_created="now", after=10, up_to=100)  # type: ignore[arg-type]
    return [flow async for page in pages for flow in page.flows]


@pytest.mark.parametrize(
    "flow",
    [
        OpenFlow(flow_type="*", flow_id=FLOW_ID, last_sequence=12),
        OpenFlow(flow_type="refund", flow_id=">", last_sequence=12),
        OpenFlow(flow_type="refund", flow_id="*", last_sequence=12),
        OpenFlow(flow_type="refund.x", flow_id=FLOW_ID, last_sequence=12),
    ],
    ids=lambda flow: f"{flow.flow_type} {flow.flow_id}",
)
async def test_a_name_that_is_no_flows_becomes_no_subject(flow: OpenFlow) -> None:
    good = OpenFlow(flow_type="refund", flow_id=FLOW_ID, last_sequence=13)
    assert await listed(Posing([flow, good])) == [("refund", FLOW_ID, 13)]


@pytest.mark.parametrize("sequences", [[10], [101], [20, 20], [20, 19]])
async def test_flows_that_were_not_asked_for_are_not_believed(sequences: list[int]) -> None:
    flows = [OpenFlow(flow_type="refund", flow_id=FLOW_ID, last_sequence=each) for each in sequences]
    with pytest.raises(Unavailable):
        await listed(Posing(flows))


async def test_a_list_that_leads_nowhere_ends() -> None:
    one = OpenFlow(flow_type="refund", flow_id=FLOW_ID, last_sequence=20)
    with pytest.raises(Unavailable):
        await listed(Posing([one], [], more=True))
    with pytest.raises(Unavailable):
        await listed(Posing([one], [one], more=True))
