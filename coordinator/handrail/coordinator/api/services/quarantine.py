"""QuarantineService: messages that broke their contract."""

from __future__ import annotations

from grpc.aio import ServicerContext

from handrail.coordinator.api import authorization
from handrail.coordinator.api.paging import fitting, page_size, page_token, place_in
from handrail.coordinator.lists.quarantined import QuarantineReader, not_quarantined, place_of
from handrail.v1 import quarantine_service_pb2 as pb
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceServicer

_Context = ServicerContext[object, object]
_DEFAULT_PAGE = 50
_MAX_PAGE = 100
"""Each message is read with its bytes, up to the broker's largest: fewer at once than of other lists."""


class QuarantineService(QuarantineServiceServicer):
    """Reads the quarantines of the agents, and the coordinator's own."""

    def __init__(self, reader: QuarantineReader) -> None:
        self._reader = reader

    async def ListQuarantined(
        self, request: pb.ListQuarantinedRequest, context: _Context
    ) -> pb.ListQuarantinedResponse:
        """Returns one page by agent, the oldest of each first, without the bytes."""
        listing = ("quarantine", request.flow_type, request.agent)
        found = await self._reader.page(
            flow_type=request.flow_type,
            agent=request.agent,
            after=place_in(request.page_token, *listing),
            size=min(page_size(request.page_size, _DEFAULT_PAGE), _MAX_PAGE),
            covers=authorization.lists,
        )
        messages = fitting(map(_without_body, found.messages), len(found.messages))
        end = found.end if len(messages) == len(found.messages) else place_of(messages[-1])
        token = page_token(f"{end.agent}/{end.sequence}", *listing) if end is not None else ""
        return pb.ListQuarantinedResponse(messages=messages, next_page_token=token)

    async def GetQuarantined(self, request: pb.GetQuarantinedRequest, context: _Context) -> pb.GetQuarantinedResponse:
        """Returns one message with its bytes; raises QUARANTINE_NOT_FOUND."""
        message = await self._reader.message(request.agent, request.quarantine_id)
        authorization.require_on(message.flow_type, not_quarantined(request.agent, request.quarantine_id))
        return pb.GetQuarantinedResponse(message=message)


def _without_body(message: pb.QuarantinedMessage) -> pb.QuarantinedMessage:
    message.message.ClearField("body")
    return message
