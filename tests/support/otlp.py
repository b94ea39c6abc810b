"""A receiver of traces, like any collector: OTLP over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Traced:
    """A received span, and the process it came from."""

    service: str
    pid: int
    span: Span

    @property
    def name(self) -> str:
        """The span's name."""
        return self.span.name

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        """16 hex digits; empty for a root."""
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> list[tuple[str, str]]:
        """The spans of other traces that it points to: trace id and span id."""
        return [(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links]

    @property
    def attributes(self) -> dict[str, str | int]:
        """Attributes that are texts or whole numbers."""
        return {each.key: each.value.string_value or each.value.int_value for each in self.span.attributes}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans it receives."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Traced] = []

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """The one RPC of the service."""
        for batch in request.resource_spans:
            resource = {each.key: each.value for each in batch.resource.attributes}
            service, pid = resource["service.name"].string_value, resource["process.pid"].int_value
            self.spans += [Traced(service, pid, span) for scope in batch.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes a process send its spans here, with its process id."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process"}

    def trace(self, trace_id: str) -> list[Traced]:
        """The spans of one trace."""
        return [each for each in self.spans if each.trace_id == trace_id]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a receiver on a free port while the block runs."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
