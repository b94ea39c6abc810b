"""Follows one flow over gRPC, and tells how the coordinator handles a failure."""

import threading
import time
from collections.abc import Iterator

from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.v1.decision_pb2 import FlowClosed, FlowHalted, FlowStatus
from handrail.v1.event_pb2 import Kind, RecordedEvent
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import WatchFlowRequest

RESUME_AFTER = 1.0
"""Seconds until a watch resumes after the coordinator ended it or was unreachable."""


def watch(client: Client, *, flow_id: str, name: str, story: Story) -> None:
    """Tells about failures in a flow and their consequences, in a separate thread, until the flow is closed."""

    def follow() -> None:
        sequence = 0
        while True:
            request = WatchFlowRequest(flow_id=flow_id, after_sequence=sequence)
            try:
                for response in client.stream(client.flows.WatchFlow, request):
                    sequence = response.sequence
                    for line in _told(response.event):
                        story.tell(f"{name}: {line}")
                    if response.event.type == FlowClosed.DESCRIPTOR.full_name:
                        return
            except CommandError as error:
                if error.code is not Exit.UNREACHABLE:
                    return  # the client was closed: the run is over
                time.sleep(RESUME_AFTER)

    threading.Thread(target=follow, name=f"watch {name}", daemon=True).start()


def _told(recorded: RecordedEvent) -> Iterator[str]:
    event, data = recorded.event, recorded.event.data
    short = recorded.type.rpartition(".")[2]
    failed, halted, closed = StepFailed(), FlowHalted(), FlowClosed()
    if data.Unpack(failed):
        yield f"{recorded.agent} fails in attempt {event.attempt}: {failed.text}"
    elif data.Unpack(halted):
        yield f"halted: {halted.reason}"
    elif data.Unpack(closed):
        yield f"closed as {FlowStatus.Name(closed.status).removeprefix('FLOW_STATUS_').lower()}"
    elif recorded.kind == Kind.KIND_RETRY:
        yield f"{recorded.agent} must try again, attempt {event.attempt}"
    elif recorded.kind == Kind.KIND_UNDO:
        yield f"{recorded.agent} must undo {short}"
    elif recorded.kind == Kind.KIND_UNDONE:
        yield f"{recorded.agent} has undone its effect: {short}"
