"""Tracing, counters and logs: almost free if nothing is exported."""

from handrail.mesh.telemetry.configure import configure
from handrail.mesh.telemetry.recorder import (
    NO_SPAN,
    Attribute,
    Counters,
    NoSpan,
    Recorder,
    Span,
    count,
    current_span_id,
    headers,
    is_counting,
    is_recording,
    rpc_span,
    shutdown,
    span,
    use,
    use_counters,
)

__all__ = [
    "NO_SPAN",
    "Attribute",
    "Counters",
    "NoSpan",
    "Recorder",
    "Span",
    "configure",
    "count",
    "current_span_id",
    "headers",
    "is_counting",
    "is_recording",
    "rpc_span",
    "shutdown",
    "span",
    "use",
    "use_counters",
]
