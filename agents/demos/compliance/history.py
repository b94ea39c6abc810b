"""The history of a flow: its messages, as the coordinator lists them over gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from handrail.cli.client import Client
from handrail.v1.event_pb2 import Kind, RecordedEvent
from handrail.v1.flow_service_pb2 import ListFlowEventsRequest

M = TypeVar("M", bound=Message)

COMMANDS = frozenset({Kind.KIND_RETRY, Kind.KIND_UNDO})


@dataclass(frozen=True, slots=True)
class History:
    """The messages of one flow that count, in order; without commands, which only repeat earlier messages."""

    events: Sequence[RecordedEvent]

    @classmethod
    def read(cls, client: Client, flow_id: str) -> "History":
        """Reads the messages."""
        request = ListFlowEventsRequest(flow_id=flow_id)
        said = client.listed(client.flows.ListFlowEvents, request, items=lambda page: page.events)
        return cls([each for each in said if not each.void_reason and each.kind not in COMMANDS])

    def of(self, message: type[M]) -> list[M]:
        """The messages of a type."""
        name = message.DESCRIPTOR.full_name
        return [message.FromString(each.event.data.value) for each in self.events if each.type == name]
