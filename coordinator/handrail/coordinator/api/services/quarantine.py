"""QuarantineService: messages that broke their contract."""

from __future__ import annotations

from grpc.aio import ServicerContext

from handrail.coordinator.api import authorization
from handrail.coordinator.api.paging import page_of, page_size, page_token, sequence_of
from handrail.coordinator.lists.flows import Scanner, not_quarantined
from handrail.v1 import quarantine_service_pb2 as pb
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceServicer

_Context = ServicerContext[object, object]
_DEFAULT_PAGE = 50
_MAX_PAGE = 100
"""Each message is read with its bytes, up to the broker's largest: fewer at once than of other lists."""


class QuarantineService(QuarantineServiceServicer):
    """Reads the QUARANTINE stream."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner

    async def ListQuarantined(
        self, request: pb.ListQuarantinedRequest, context: _Context
    ) -> pb.ListQuarantinedResponse:
        """Returns one page, oldest first, without the bytes."""
        listing = ("quarantine", request.flow_type)
        found = await self._scanner.quarantined(
            flow_type=request.flow_type,
            cursor=sequence_of(request.page_token, *listing),
            size=min(page_size(request.page_size, _DEFAULT_PAGE), _MAX_PAGE),
            covers=authorization.lists,
        )
        messages, cursor = page_of(found, _without_body)
        return pb.ListQuarantinedResponse(messages=messages, next_page_token=page_token(cursor, *listing))

    async def GetQuarantined(self, request: pb.GetQuarantinedRequest, context: _Context) -> pb.GetQuarantinedResponse:
        """Returns one message with its bytes; raises QUARANTINE_NOT_FOUND."""
        message = await self._scanner.quarantined_message(request.quarantine_id)
        authorization.require_on(message.flow_type, not_quarantined(request.quarantine_id))
        return pb.GetQuarantinedResponse(message=message)


def _without_body(message: pb.QuarantinedMessage) -> pb.QuarantinedMessage:
    message.message.ClearField("body")
    return message
