"""Calls to the coordinator: one channel, typed stubs, the caller's token, and errors as one line of text.

What a call needs is loaded when it is made: loading everything would take longer than most calls.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.transport import Transport
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings, secret
from handrail.v1.listing_pb2 import AsOf, Total

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

    from handrail.v1.act_service_pb2_grpc import ActServiceStub
    from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
    from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub
    from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
    from handrail.v1.identity_service_pb2_grpc import IdentityServiceStub
    from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub
    from handrail.v1.template_service_pb2_grpc import TemplateServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")


@dataclass(slots=True)
class Listed(Generic[Item]):
    """What a command lists: the items, and what the last page said. `as_of` is unset after a scan of the stream."""

    items: list[Item] = field(default_factory=list)
    next_page_token: str = ""
    total: Total = field(default_factory=Total)
    as_of: AsOf | None = None


class _IndexedPage(Protocol):
    next_page_token: str

    @property
    def total(self) -> Total: ...

    @property
    def as_of(self) -> AsOf: ...

    def HasField(self, field_name: Literal["as_of"]) -> bool: ...  # protobuf's name


class _PageRequest(Protocol):
    page_size: int
    page_token: str


class _Page(Protocol):
    next_page_token: str


IndexedPage = TypeVar("IndexedPage", bound=_IndexedPage)
PageRequest = TypeVar("PageRequest", bound=_PageRequest)
Page = TypeVar("Page", bound=_Page)

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""Every RPC may be retried: those that change something carry a request id."""

_PAGE_SIZE = 500
_MAX_RESPONSE_BYTES = 16 << 20

_REQUEST_ID = "request_id"
_TOKEN_FILE = f"{table.TOKEN_FILE.flag} or {table.TOKEN_FILE.env}"


class Client:
    """A connection to one coordinator address. Failed calls raise CommandError."""

    def __init__(self, transport: Transport, *, token: str, timeout: timedelta) -> None:
        self.address = transport.address
        self.request_id: str | None = None
        """The request id, empty for a new one; None if the command does not let the caller choose one."""
        self._timeout = timeout.total_seconds()
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = transport.channel(
            (
                ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
                ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
                ("grpc.keepalive_time_ms", 30_000),
            )
        )

    @cached_property
    def acts(self) -> ActServiceStub:
        """Calls of the ActService."""
        from handrail.v1.act_service_pb2_grpc import ActServiceStub

        return ActServiceStub(self._channel)

    @cached_property
    def approvals(self) -> ApprovalServiceStub:
        """Calls of the ApprovalService."""
        from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub

        return ApprovalServiceStub(self._channel)

    @cached_property
    def delegations(self) -> DelegationServiceStub:
        """Calls of the DelegationService."""
        from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub

        return DelegationServiceStub(self._channel)

    @cached_property
    def flows(self) -> FlowServiceStub:
        """Calls of the FlowService."""
        from handrail.v1.flow_service_pb2_grpc import FlowServiceStub

        return FlowServiceStub(self._channel)

    @cached_property
    def identity(self) -> IdentityServiceStub:
        """Calls of the IdentityService."""
        from handrail.v1.identity_service_pb2_grpc import IdentityServiceStub

        return IdentityServiceStub(self._channel)

    @cached_property
    def quarantine(self) -> QuarantineServiceStub:
        """Calls of the QuarantineService."""
        from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub

        return QuarantineServiceStub(self._channel)

    @cached_property
    def templates(self) -> TemplateServiceStub:
        """Calls of the TemplateService."""
        from handrail.v1.template_service_pb2_grpc import TemplateServiceStub

        return TemplateServiceStub(self._channel)

    @classmethod
    def of(cls, settings: Settings) -> Client:
        """Returns the client that the settings describe."""
        transport = Transport.of(settings)
        token, token_file = settings.value(table.TOKEN), settings.value(table.TOKEN_FILE)
        # A file on the command line takes precedence over the environment.
        if token_file is not None and (not token or settings.flags.get(table.TOKEN_FILE.key)):
            token = secret(token_file)
        elif not token:
            from handrail.cli.login.stored_login import token_for

            token = token_for(settings.value(table.ADDRESS))
        if not token.isascii() or not (token or "-").isprintable():
            raise CommandError("the token is not a bearer token: it has invalid characters", Exit.USAGE)
        return cls(transport, token=token, timeout=settings.value(table.TIMEOUT))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Calls a unary method. One that changes something gets a request id, the same for all tries."""
        request_id = self._identify(request)
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            explained = self._explained(error)
            if request_id and self.request_id is not None and explained.code is Exit.UNREACHABLE:
                # It may have been done: a repeat with the same id is not done twice.
                explained.text += f"; to repeat this request: --request-id {request_id}"
            raise explained from None

    def listed(
        self,
        method: grpc.UnaryUnaryMultiCallable[PageRequest, Page],
        request: PageRequest,
        *,
        items: Callable[[Page], Sequence[Item]],
        limit: int = sys.maxsize,
    ) -> Iterator[Item]:
        """Up to `limit` items of a list, a page at a time; the request is asked again with the token of each page."""
        largest = request.page_size or _PAGE_SIZE
        while limit > 0:
            request.page_size = min(limit, largest)
            page = self.call(method, request)
            found = items(page)[:limit]
            yield from found
            limit -= len(found)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def indexed(
        self,
        method: grpc.UnaryUnaryMultiCallable[PageRequest, IndexedPage],
        request: PageRequest,
        *,
        items: Callable[[IndexedPage], Sequence[Item]],
        limit: int = sys.maxsize,
    ) -> Listed[Item]:
        """Up to `limit` items of a list, like `listed`, from the page on that the request names."""
        found: Listed[Item] = Listed()
        while True:
            request.page_size = min(limit - len(found.items), _PAGE_SIZE)
            page = self.call(method, request)
            found.items += items(page)[: limit - len(found.items)]
            found.next_page_token = request.page_token = page.next_page_token
            found.total, found.as_of = page.total, page.as_of if page.HasField("as_of") else None
            if not page.next_page_token or len(found.items) >= limit:
                return found

    def stream(self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request) -> Iterator[Response]:
        """Calls a streaming method, without a deadline."""
        try:
            yield from method(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explained(error) from None

    def reflected(self, prefix: str) -> list[FileDescriptorProto]:
        """Returns the files of the services with this name prefix, and their imports; none if reflection is off."""
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

        listed = self._reflect([ServerReflectionRequest(list_services="")])
        names = [each.name for answer in listed for each in answer.list_services_response.service]
        wanted = [ServerReflectionRequest(file_containing_symbol=name) for name in names if name.startswith(prefix)]
        found = (answer.file_descriptor_response.file_descriptor_proto for answer in self._reflect(wanted))
        return [FileDescriptorProto.FromString(each) for files in found for each in files]

    def _reflect(self, questions: list[ServerReflectionRequest]) -> list[ServerReflectionResponse]:
        from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

        method: grpc.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse]
        method = self._channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        try:
            return list(method(iter(questions), timeout=self._timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            if cast("grpc.Call", error).code() is grpc.StatusCode.UNIMPLEMENTED:
                return []
            raise self._explained(error) from None

    def _identify(self, request: object) -> str:
        """Sets a request's id and returns it; empty if its type has none."""
        if not isinstance(request, Message) or _REQUEST_ID not in request.DESCRIPTOR.fields_by_name:
            return ""
        import uuid

        request_id = self.request_id or str(uuid.uuid4())
        setattr(request, _REQUEST_ID, request_id)
        return request_id

    def _explained(self, error: grpc.RpcError) -> CommandError:
        from handrail.cli.call_error import of_call

        explained = of_call(cast("grpc.Call", error), address=self.address)
        if explained.code is Exit.FORBIDDEN and not self._metadata:
            text = f"no token: name a file with {_TOKEN_FILE}, or log in with `handrail login` (UNAUTHENTICATED)"
            return CommandError(text, Exit.FORBIDDEN, reason="UNAUTHENTICATED")
        return explained
