"""One trace a flow: its id is the flow id, its parents are the spans that events carry; nothing unless asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from handrail.mesh import telemetry
from handrail.mesh.telemetry.otel import FlowIdGenerator, OtelRecorder

FLOW_ID = "0123456789abcdef" * 2


class Traces:
    """What would have been exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(id_generator=FlowIdGenerator(), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.recorder = OtelRecorder(provider)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    telemetry.use(traces.recorder)
    yield traces
    telemetry.shutdown()


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def test_nothing_is_recorded_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not telemetry.configure("test")
    one = telemetry.span("handle", flow_id=FLOW_ID, step="pay")
    other = telemetry.span("publish", flow_id=FLOW_ID)
    assert one is other, "no object is made for a span that is not recorded"
    with one as span:
        span.set("key", 1)
        span.fail("text")
        span.link_flow(FLOW_ID)
        span.discard()
        assert span.span_id == ""
    assert telemetry.current_span_id() == ""
    assert telemetry.headers() is None


@pytest.mark.parametrize(
    "taken_back", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}], ids=["disabled", "no exporter"]
)
def test_the_environment_can_take_it_back(monkeypatch: pytest.MonkeyPatch, taken_back: dict[str, str]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in taken_back.items():
        monkeypatch.setenv(name, value)
    assert not telemetry.configure("test")


def test_the_trace_id_is_the_flow_id_and_the_first_span_is_its_only_root(traces: Traces) -> None:
    with telemetry.span("start", flow_id=FLOW_ID, agent="detection") as start:
        started_by = start.span_id
        assert telemetry.current_span_id() == started_by
    with telemetry.span("handle", flow_id=FLOW_ID, parent=started_by, step="enrich") as handle:
        handled_by = handle.span_id
    with telemetry.span("publish", flow_id=FLOW_ID, parent=handled_by):
        pass
    assert {trace_id(span) for span in traces.spans.values()} == {FLOW_ID}
    assert traces.spans["start"].parent is None
    for name, parent in (("handle", started_by), ("publish", handled_by)):
        context = traces.spans[name].parent
        assert context is not None
        assert f"{context.span_id:016x}" == parent
        assert context.is_remote
    assert traces.spans["handle"].attributes == {"handrail.flow_id": FLOW_ID, "handrail.step": "enrich"}


def test_spans_of_different_flows_do_not_meet(traces: Traces) -> None:
    other = "f" * 32
    with telemetry.span("one", flow_id=FLOW_ID), telemetry.span("two", flow_id=other):
        pass
    assert trace_id(traces.spans["one"]) == FLOW_ID
    assert trace_id(traces.spans["two"]) == other
    assert traces.spans["two"].parent is None


def test_a_root_that_turns_out_not_to_be_one_is_thrown_away(traces: Traces) -> None:
    with telemetry.span("start", flow_id=FLOW_ID) as span:
        span.discard()
    assert traces.spans == {}


def test_an_error_marks_its_span(traces: Traces) -> None:
    with pytest.raises(ValueError, match="broken"), telemetry.span("handle", flow_id=FLOW_ID):
        raise ValueError("broken")
    assert not traces.spans["handle"].status.is_ok


def test_an_rpc_keeps_its_callers_trace_and_links_to_the_flow(traces: Traces) -> None:
    caller = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with telemetry.rpc_span("handrail.v1.FlowService/StartFlow", {"traceparent": caller}) as call:
        call.link_flow(FLOW_ID, "c" * 16)
    span = traces.spans["handrail.v1.FlowService/StartFlow"]
    assert trace_id(span) == "a" * 32
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b" * 16
    [link] = span.links
    assert f"{link.context.trace_id:032x}" == FLOW_ID
    assert span.attributes is not None
    assert span.attributes["handrail.flow_id"] == FLOW_ID


@pytest.mark.parametrize("nonsense", ["zz", "-1", "f" * 40, "0" * 16])
def test_an_event_that_carries_nonsense_for_a_span_begins_no_fault(traces: Traces, nonsense: str) -> None:
    with telemetry.span("handle", flow_id=FLOW_ID, parent=nonsense) as span:
        span.link_flow(FLOW_ID, nonsense)
    assert trace_id(traces.spans["handle"]) == FLOW_ID
    assert not traces.spans["handle"].links


def test_messages_published_within_a_span_carry_it(traces: Traces) -> None:
    assert telemetry.headers() is None
    with telemetry.span("publish", flow_id=FLOW_ID) as span:
        assert telemetry.headers() == {"traceparent": f"00-{FLOW_ID}-{span.span_id}-01"}


def test_a_span_that_the_sampler_drops_has_no_id_to_pass_on() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, id_generator=FlowIdGenerator(), shutdown_on_exit=False)
    telemetry.use(OtelRecorder(provider))
    try:
        with telemetry.span("start", flow_id=FLOW_ID) as span:
            assert span.span_id == ""
            assert telemetry.current_span_id() == ""
    finally:
        telemetry.shutdown()
