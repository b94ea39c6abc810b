"""The board: the status of every flow, as the coordinator lists it over gRPC."""

from collections.abc import Iterable, Sequence

from handrail.cli.client import Client
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import GetFlowRequest, ListFlowsRequest

FINAL = frozenset(
    {
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    }
)
PAGE_SIZE = 200
_SHOWN = 3


class Board:
    """The last known status of the flows with the given business keys."""

    def __init__(self, client: Client, flow_type: str, keys: Iterable[str]) -> None:
        self._client = client
        self._flow_type = flow_type
        self.flow_ids = {key: flow_id_from_key(flow_type, key) for key in keys}
        self._keys = {flow_id: key for key, flow_id in self.flow_ids.items()}
        self.statuses: dict[str, FlowStatus.ValueType] = {}

    @property
    def ended(self) -> int:
        """The number of flows that have ended."""
        return sum(status in FINAL for status in self.statuses.values())

    @property
    def open(self) -> list[str]:
        """The keys whose flows have not ended."""
        return [key for key in self.flow_ids if self.statuses.get(key) not in FINAL]

    def look(self) -> Sequence[str]:
        """Reads all statuses; returns the keys of flows that have ended since the last time."""
        before = set(self.open)
        request = ListFlowsRequest(flow_type=self._flow_type, page_size=PAGE_SIZE)
        for flow in self._client.listed(self._client.flows.ListFlows, request, items=lambda page: page.flows):
            if flow.flow_id in self._keys:
                self.statuses[self._keys[flow.flow_id]] = flow.status
        return sorted(before - set(self.open))

    def owed(self, key: str) -> str:
        """Describes the status of a flow and what it waits for."""
        if key not in self.statuses:
            return "its flow has not begun"
        request = GetFlowRequest(flow_id=self.flow_ids[key])
        flow = self._client.call(self._client.flows.GetFlow, request).flow
        what = [f"{each.what} by {each.by_agent or ' or '.join(each.by_roles)}" for each in flow.expectations[:_SHOWN]]
        what += [f"{len(flow.expectations) - _SHOWN} more"] if len(flow.expectations) > _SHOWN else []
        status = FlowStatus.Name(flow.status).removeprefix("FLOW_STATUS_")
        return f"{status}, waits for {'; '.join(what) or flow.status_reason}"
