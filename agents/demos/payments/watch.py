"""Follows one flow as it goes, over gRPC, and tells what the coordinator makes of a failure."""

import threading
from collections.abc import Iterator

from demos.payments.story import Story
from handrail.cli.client import Client
from handrail.cli.exits import CommandError
from handrail.v1.decision_pb2 import FlowClosed, FlowHalted, FlowStatus
from handrail.v1.event_pb2 import Kind, RecordedEvent
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import WatchFlowRequest


def watch(client: Client, *, flow_id: str, chargeback_id: str, story: Story) -> None:
    """Tell what goes wrong in a flow, and what is done about it, in a thread of its own until the flow is closed."""

    def follow() -> None:
        try:
            for response in client.stream(client.flows.WatchFlow, WatchFlowRequest(flow_id=flow_id)):
                for line in _told(response.event):
                    story.tell(f"{chargeback_id}: {line}")
                if response.event.type == FlowClosed.DESCRIPTOR.full_name:
                    return
        except CommandError as error:
            story.tell(f"{chargeback_id}: can't be watched any more: {error}")

    threading.Thread(target=follow, name=f"watch {chargeback_id}", daemon=True).start()


def _told(recorded: RecordedEvent) -> Iterator[str]:
    event, data = recorded.event, recorded.event.data
    short = recorded.type.rpartition(".")[2]
    failed, halted, closed = StepFailed(), FlowHalted(), FlowClosed()
    if data.Unpack(failed):
        yield f"{recorded.agent} fails, attempt {event.attempt}: {failed.text}"
    elif data.Unpack(halted):
        yield f"halted: {halted.reason}"
    elif data.Unpack(closed):
        yield f"closed as {FlowStatus.Name(closed.status).removeprefix('FLOW_STATUS_').lower()}"
    elif recorded.kind == Kind.KIND_RETRY:
        yield f"{recorded.agent} is to try again, attempt {event.attempt}"
    elif recorded.kind == Kind.KIND_UNDO:
        yield f"{recorded.agent} is to undo {short}"
    elif recorded.kind == Kind.KIND_UNDONE:
        yield f"{recorded.agent} has undone it: {short}"
