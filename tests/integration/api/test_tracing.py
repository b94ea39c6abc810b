"""A call keeps its caller's trace and links to the flow's; the flow's own trace has the flow's id."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from handrail.mesh import telemetry
from handrail.mesh.telemetry.otel import FlowIdGenerator, OtelRecorder
from handrail.mesh.wire.envelope import pack
from handrail.v1.flow_service_pb2 import GetFlowRequest, GetFlowResponse, StartFlowRequest, StartFlowResponse
from payments.v1.payments_pb2 import ChargebackReceived
from tests.support import flows
from tests.support.api import Api, bearer, refused
from tests.support.waiting import eventually

TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Gets every span that ends in this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(id_generator=FlowIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use(OtelRecorder(provider))
    yield exporter
    telemetry.shutdown()


@pytest.fixture
async def api(exporter: InMemorySpanExporter, api: Api) -> Api:
    """A coordinator that records, with an active flow type."""
    await api.replica.catalog.put(flows.stored(flows.template()))
    await api.replica.catalog.activate("refund", 1, by="olga", reason="", now=datetime(2026, 3, 1, tzinfo=UTC))
    return api


def the_span(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


async def start(api: Api) -> str:
    message = ChargebackReceived(chargeback_id="c1", account_id="a1")
    message.amount.units, message.amount.currency_code = 5, "EUR"
    started = await api.call(
        "FlowService/StartFlow",
        StartFlowRequest(flow_type="refund", data=pack(message)),
        StartFlowResponse,
        metadata=(*bearer(api.token("stan", "starter")), TRACEPARENT),
    )
    flow_id: str = started.flow_id
    return flow_id


def get(api: Api, flow_id: str) -> Any:
    metadata = (*bearer(api.token("vera")), TRACEPARENT)
    return api.call("FlowService/GetFlow", GetFlowRequest(flow_id=flow_id), GetFlowResponse, metadata=metadata)


@pytest.mark.parametrize("method", ["StartFlow", "GetFlow"])
async def test_a_call_keeps_its_callers_trace_and_links_to_the_flows(
    api: Api, exporter: InMemorySpanExporter, method: str
) -> None:
    flow_id = await start(api)
    await get(api, flow_id)
    call = the_span(exporter, f"handrail.v1.FlowService/{method}")
    assert call.context is not None
    assert call.parent is not None
    assert (f"{call.context.trace_id:032x}", f"{call.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)

    began = the_span(exporter, "start")
    assert began.context is not None
    assert (f"{began.context.trace_id:032x}", began.parent) == (flow_id, None)
    (link,) = call.links
    assert (link.context.trace_id, link.context.span_id) == (began.context.trace_id, began.context.span_id)


async def test_a_refusal_is_no_fault_of_the_server(api: Api, exporter: InMemorySpanExporter) -> None:
    await refused(get(api, "ef" * 16))
    call = the_span(exporter, "handrail.v1.FlowService/GetFlow")
    assert call.attributes is not None
    assert call.attributes["handrail.reason"] == "FLOW_NOT_FOUND"
    assert (call.status.status_code, list(call.events)) == (StatusCode.UNSET, [])


async def test_a_broken_call_is_a_fault(
    api: Api, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.replica.bus, "last_on_leader", None)
    with pytest.raises(grpc.aio.AioRpcError):
        await get(api, "ef" * 16)

    async def ended() -> bool:
        # The span ends after the caller has its answer.
        return any(span.name == "handrail.v1.FlowService/GetFlow" for span in exporter.get_finished_spans())

    await eventually(ended)
    call = the_span(exporter, "handrail.v1.FlowService/GetFlow")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "INTERNAL")
