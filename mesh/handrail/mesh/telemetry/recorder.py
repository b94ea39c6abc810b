"""Tracing and counting: one trace a flow, decided by the standard OTEL_* environment, close to free without it.

The trace id is the flow id. Spans are short (`start`, `handle`, `publish`, `decide`); the parent of each is the span
that published the event it answers, as `Event.span_id` carries it. Only the first event of a flow has none, so a flow
has one root.

    with telemetry.span("handle", flow_id=event.flow_id, parent=event.span_id, step="pay") as span:
        answer.span_id = span.span_id

Counters (`count`) go to OpenTelemetry's metrics: `failures`, by `loop` and `error`, is what keeps failing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

Attribute = str | int | float | bool


class Span(Protocol):
    """What Handrail does with a span, whether one is recorded or not."""

    @property
    def span_id(self) -> str:
        """16 hex digits for `Event.span_id`; empty when nothing is recorded."""

    def set(self, key: str, value: Attribute) -> None:
        """Add the attribute `handrail.<key>`."""

    def fail(self, text: str) -> None:
        """Mark what the span covers as failed."""

    def link_flow(self, flow_id: str, span_id: str = "") -> None:
        """Name the flow that this span is about, and point to the span in its trace where there is one."""

    def discard(self) -> None:
        """Don't record it after all: what it was begun for turned out to be done already."""


class Recorder(Protocol):
    """What records spans; `handrail.mesh.telemetry.otel` has the one for OpenTelemetry."""

    def span(
        self, name: str, flow_id: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """Begin a span in the trace of a flow."""

    def rpc_span(
        self, name: str, metadata: Mapping[str, str], attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """Begin the span of a call."""

    def current_span_id(self) -> str:
        """The id of the span under way."""

    def headers(self) -> dict[str, str] | None:
        """The span under way as message headers."""

    def close(self) -> None:
        """Send what is left."""


class Counters(Protocol):
    """What counts; `handrail.mesh.telemetry.otel_metrics` has the one for OpenTelemetry."""

    def add(self, name: str, amount: int, attributes: Mapping[str, Attribute]) -> None:
        """Add to a counter."""

    def close(self) -> None:
        """Send what is left."""


_recorder: Recorder | None = None
_counters: Counters | None = None


def use(recorder: Recorder | None) -> None:
    """Record with this recorder from now on; None: record nothing."""
    global _recorder
    _recorder = recorder


def use_counters(counters: Counters | None) -> None:
    """Count with these from now on; None: count nothing."""
    global _counters
    _counters = counters


def shutdown() -> None:
    """Send what is left and stop recording."""
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
    """A span in the trace of a flow: a child of the span with the id `parent`, of whatever process, or the flow's root.

    Attributes get the prefix `handrail.`: `step="pay"` becomes `handrail.step`.
    """
    if _recorder is None:
        return NO_SPAN
    return _recorder.span(name, flow_id, parent, attributes)


def count(name: str, amount: int = 1, **attributes: Attribute) -> None:
    """Add to the counter `handrail.<name>`, if counters are exported."""
    if _counters is not None:
        _counters.add(name, amount, attributes)


def rpc_span(name: str, metadata: Mapping[str, str], **attributes: Attribute) -> AbstractContextManager[Span]:
    """The span of a served call, in its caller's trace where `metadata` has a `traceparent`."""
    if _recorder is None:
        return NO_SPAN
    return _recorder.rpc_span(name, metadata, attributes)


def current_span_id() -> str:
    """The id of the span under way, 16 hex digits; empty when nothing is recorded."""
    return "" if _recorder is None else _recorder.current_span_id()


def headers() -> dict[str, str] | None:
    """`traceparent` for a message that is published within a recorded span; None where there is none: no headers."""
    return None if _recorder is None else _recorder.headers()


class NoSpan:
    """Stands for every span while nothing is recorded: one object, no work."""

    span_id = ""

    def set(self, key: str, value: Attribute) -> None:
        """There is nothing to add to."""

    def fail(self, text: str) -> None:
        """There is nothing to mark."""

    def link_flow(self, flow_id: str, span_id: str = "") -> None:
        """There is nothing to link from."""

    def discard(self) -> None:
        """There is nothing to throw away."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NO_SPAN = NoSpan()
