"""Tracing with OpenTelemetry: only this module imports its tracing, and it is loaded only if traces are recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from handrail.mesh.telemetry.protocol import over_http
from handrail.mesh.telemetry.recorder import Attribute, Span

_trace_of_root: ContextVar[int] = ContextVar("handrail_trace_of_root", default=0)
_SPAN_ID = re.compile("[0-9a-f]{16}")
_w3c = TraceContextTextMapPropagator()


class FlowIdGenerator(RandomIdGenerator):
    """Uses the flow id as the trace id of a flow's root span, and random ids for all other traces."""

    def generate_trace_id(self) -> int:
        """The flow id while the root span of a flow is created, else a random id."""
        return _trace_of_root.get() or super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """False for a flow: its id may be derived from a business key, so its randomness can't be relied on."""
        return _trace_of_root.get() == 0


def exporting_recorder(service: str) -> OtelRecorder:
    """A recorder that exports in batches, as configured by the OTEL_* environment."""
    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), id_generator=FlowIdGenerator(), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return OtelRecorder(provider)


class OtelRecorder:
    """Records spans with an OpenTelemetry provider; its id generator must be a `FlowIdGenerator`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("handrail")

    @contextmanager
    def span(self, name: str, flow_id: str, parent: str, attributes: Mapping[str, Attribute]) -> Iterator[Span]:
        """A child of the span `parent`, or the root of the flow's trace."""
        context = Context()
        if _SPAN_ID.fullmatch(parent):  # the span id of an event is untrusted
            context = set_span_in_context(NonRecordingSpan(_remote(flow_id, parent)), context)
        token = _trace_of_root.set(int(flow_id, 16))
        try:
            otel = self._tracer.start_span(name, context, attributes=_named({"flow_id": flow_id, **attributes}))
        finally:
            _trace_of_root.reset(token)
        with _under_way(otel) as span:
            yield span

    @contextmanager
    def rpc_span(self, name: str, metadata: Mapping[str, str], attributes: Mapping[str, Attribute]) -> Iterator[Span]:
        """A span in the caller's trace, or in a new one."""
        context = _w3c.extract(dict(metadata), Context())
        otel = self._tracer.start_span(name, context, SpanKind.SERVER, attributes=_named(attributes))
        with _under_way(otel) as span:
            yield span

    def current_span_id(self) -> str:
        """The id of the current span; empty if it is not sampled, since nobody could find it."""
        context = get_current_span().get_span_context()
        return f"{context.span_id:016x}" if context.is_valid and context.trace_flags.sampled else ""

    def headers(self) -> dict[str, str] | None:
        """The W3C trace context of the current span."""
        carrier: dict[str, str] = {}
        _w3c.inject(carrier)
        return carrier or None

    def close(self) -> None:
        """Exports pending spans and waits for the export."""
        self._provider.shutdown()


class RecordedSpan:
    """A span that OpenTelemetry records."""

    def __init__(self, otel: OtelSpan) -> None:
        self._otel = otel
        self.discarded = False

    @property
    def span_id(self) -> str:
        """16 hex digits; empty if the sampler dropped the span."""
        context = self._otel.get_span_context()
        return f"{context.span_id:016x}" if context.trace_flags.sampled else ""

    def set(self, key: str, value: Attribute) -> None:
        """Adds the attribute `handrail.<key>`."""
        self._otel.set_attribute(f"handrail.{key}", value)

    def fail(self, text: str) -> None:
        """Marks the span as failed."""
        self._otel.set_status(Status(StatusCode.ERROR, text))

    def link_flow(self, flow_id: str, span_id: str = "") -> None:
        """Adds the flow id; links to the span in the flow's trace if a span id is given."""
        self.set("flow_id", flow_id)
        if _SPAN_ID.fullmatch(span_id):
            self._otel.add_link(_remote(flow_id, span_id))

    def discard(self) -> None:
        """Never ends the span: OpenTelemetry exports only ended spans."""
        self.discarded = True


@contextmanager
def _under_way(otel: OtelSpan) -> Iterator[RecordedSpan]:
    span = RecordedSpan(otel)
    try:
        with use_span(otel, end_on_exit=False):
            yield span
    finally:
        if not span.discarded:
            otel.end()


def _remote(flow_id: str, span_id: str) -> SpanContext:
    # An event carries a span id only if its span was sampled.
    return SpanContext(int(flow_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {f"handrail.{key}": value for key, value in attributes.items()}


def _exporter() -> SpanExporter:
    if over_http("TRACES"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
