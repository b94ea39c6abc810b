"""The span of the current call: in its caller's trace, linked to the flows that it touches."""

from __future__ import annotations

from contextvars import ContextVar

import grpc.aio

from handrail.coordinator.api.error_status import CODES
from handrail.coordinator.api.interceptors import Call, Proceed
from handrail.mesh import telemetry
from handrail.mesh.flow import Flow
from handrail.mesh.telemetry import NO_SPAN, Span

_span: ContextVar[Span] = ContextVar("call_span", default=NO_SPAN)

# The other codes report the caller's mistakes; the server did its part.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def link_flow(flow: Flow) -> None:
    """Links the call's span to the trace of a flow."""
    _span.get().link_flow(flow.flow_id, flow.first.event.span_id if flow.first is not None else "")


def link_flow_id(flow_id: str, span_id: str) -> None:
    """Links to a flow that was not read: `span_id` is the span that published its first event."""
    _span.get().link_flow(flow_id, span_id)


class Tracing:
    """Gives every call a span."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        aborted: grpc.aio.AbortError | None = None
        with telemetry.rpc_span(call.method.lstrip("/"), call.metadata) as span:
            _span.set(span)
            try:
                await proceed(call)
            except grpc.aio.AbortError as error:
                # Raised again outside of the span: it only ends the call, and the span would record it as an exception.
                aborted = error
            if call.error is not None:
                code = CODES[call.error.reason]
                span.set("status", code.name)
                span.set("reason", call.error.reason_name)
                if code in _FAULTS:
                    span.fail(call.error.reason_name)
        if aborted is not None:
            raise aborted
