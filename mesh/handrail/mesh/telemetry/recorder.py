"""Tracing and counting: one trace per flow, configured by the standard OTEL_* environment, almost free without it.

The trace id is the flow id. Spans are short (`start`, `handle`, `publish`, `decide`). The parent of a span is the span
that published the event it answers; `Event.span_id` carries its id. Only the first event of a flow has no parent, so a
flow has one root.

    with telemetry.span("handle", flow_id=event.flow_id, parent=event.span_id, step="pay") as span:
        answer.span_id = span.span_id

Counters (`count`) go to OpenTelemetry's metrics: `failures`, by `loop` and `error`, counts repeated failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

Attribute = str | int | float | bool


class Span(Protocol):
    """The interface of a span, recorded or not."""

    @property
    def span_id(self) -> str:
        """16 hex digits for `Event.span_id`; empty if nothing is recorded."""

    def set(self, key: str, value: Attribute) -> None:
        """Add the attribute `handrail.<key>`."""

    def fail(self, text: str) -> None:
        """Marks the span as failed."""

    def link_flow(self, flow_id: str, span_id: str = "") -> None:
        """Adds the flow id; links to the span in the flow's trace if a span id is given."""

    def discard(self) -> None:
        """Discards the span, because its work turned out to be already done."""


class Recorder(Protocol):
    """Records spans; `handrail.mesh.telemetry.otel` implements it with OpenTelemetry."""

    def span(
        self, name: str, flow_id: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """Begins a span in the trace of a flow."""

    def rpc_span(
        self, name: str, metadata: Mapping[str, str], attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """Begins the span of a call."""

    def current_span_id(self) -> str:
        """The id of the current span."""

    def headers(self) -> dict[str, str] | None:
        """The current span as message headers."""

    def close(self) -> None:
        """Send what is left."""


class Counters(Protocol):
    """Counts; `handrail.mesh.telemetry.otel_metrics` implements it with OpenTelemetry."""

    def add(self, name: str, amount: int, attributes: Mapping[str, Attribute]) -> None:
        """Adds to a counter."""

    def close(self) -> None:
        """Send what is left."""


_recorder: Recorder | None = None
_counters: Counters | None = None


def use(recorder: Recorder | None) -> None:
    """Sets the recorder; None: nothing is recorded."""
    global _recorder
    _recorder = recorder


def use_counters(counters: Counters | None) -> None:
    """Sets the counters; None: nothing is counted."""
    global _counters
    _counters = counters


def shutdown() -> None:
    """Exports pending spans and counts, and stops recording."""
    recorder, counters = _recorder, _counters
    use(None)
    use_counters(None)
    if recorder is not None:
        recorder.close()
    if counters is not None:
        counters.close()


def is_recording() -> bool:
    """Whether spans are recorded in this process."""
    return _recorder is not None


def is_counting() -> bool:
    """Whether counters are exported from this process."""
    return _counters is not None


def span(name: str, *, flow_id: str, parent: str = "", **attributes: Attribute) -> AbstractContextManager[Span]:
    """A span in the trace of a flow: a child of the span `parent`, of any process, or the flow's root without a parent.

    Attributes get the prefix `handrail.`: `step="pay"` becomes `handrail.step`.
    """
    if _recorder is None:
        return NO_SPAN
    return _recorder.span(name, flow_id, parent, attributes)


def count(name: str, amount: int = 1, **attributes: Attribute) -> None:
    """Adds to the counter `handrail.<name>`, if counters are exported."""
    if _counters is not None:
        _counters.add(name, amount, attributes)


def rpc_span(name: str, metadata: Mapping[str, str], **attributes: Attribute) -> AbstractContextManager[Span]:
    """The span of a served call, in its caller's trace if `metadata` has a `traceparent`."""
    if _recorder is None:
        return NO_SPAN
    return _recorder.rpc_span(name, metadata, attributes)


def current_span_id() -> str:
    """The id of the current span, 16 hex digits; empty if nothing is recorded."""
    return "" if _recorder is None else _recorder.current_span_id()


def headers() -> dict[str, str] | None:
    """The `traceparent` header for a message published within a recorded span; None outside of one."""
    return None if _recorder is None else _recorder.headers()


class NoSpan:
    """The span while nothing is recorded: one shared object that does nothing."""

    span_id = ""

    def set(self, key: str, value: Attribute) -> None:
        """Does nothing."""

    def fail(self, text: str) -> None:
        """Does nothing."""

    def link_flow(self, flow_id: str, span_id: str = "") -> None:
        """Does nothing."""

    def discard(self) -> None:
        """Does nothing."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NO_SPAN = NoSpan()
