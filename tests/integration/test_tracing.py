"""One trace a flow, over six processes, as a collector of OpenTelemetry receives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from handrail.mesh.wire import ids
from tests.support.dev import running_dev, wait_for

PROCESSES = {"detection", "enrichment", "refunds", "ledger", "notification", "coordinator"}


class Collector(service_grpc.TraceServiceServicer):
    """Keeps what is exported: each span with the name of its service."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []

    def Export(
        self, request: service.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> service.ExportTraceServiceResponse:
        """Take spans."""
        for resource in request.resource_spans:
            names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]
        return service.ExportTraceServiceResponse()

    def of(self, flow_id: str) -> list[tuple[str, Span]]:
        """The spans of a flow's trace."""
        return [(name, span) for name, span in self.spans if span.trace_id.hex() == flow_id]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    service_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_collector_sees_one_root_every_parent_and_all_six_processes(
    tmp_path: Path, collector: tuple[Collector, str]
) -> None:
    received, endpoint = collector
    chargebacks = tmp_path / "chargebacks.jsonl"
    amount = {"currencyCode": "EUR", "units": "1500"}
    chargebacks.write_text(json.dumps({"chargebackId": "cb-1", "accountId": "acct-0001", "amount": amount}) + "\n")
    environment = {
        "PAYMENTS_CHARGEBACKS": str(chargebacks),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    flow_id = ids.flow_id_from_key("refund", "cb-1")
    with running_dev(tmp_path / "data", "--agents", "demos.payments", env=environment) as dev:
        wait_for(lambda: dev.json("vera", "approval", "list")["approvals"], "the refund to wait for finance")
        for person in ("anna", "ben"):
            [approval] = dev.json(person, "approval", "list")["approvals"]
            dev.text(person, "approval", "approve", approval["approvalId"], "--digest", approval["digest"])
        assert "COMPLETED" in dev.text("vera", "flow", "watch", flow_id)
        assert dev.stop() == 0
    spans = received.of(flow_id)
    assert {name for name, _ in spans} == PROCESSES
    roots = [(name, span.name) for name, span in spans if not span.parent_span_id]
    assert roots == [("detection", "start")]
    known = {span.span_id for _, span in spans}
    assert [span.name for _, span in spans if span.parent_span_id and span.parent_span_id not in known] == []
    assert {span.name for _, span in spans} == {"start", "handle", "publish", "decide"}
    assert len(known) == len(spans)
    links = {link.trace_id.hex() for _, span in spans for link in span.links}
    assert links == set()
    calls = [span for name, span in received.spans if name == "coordinator" and "ApproveProposal" in span.name]
    assert len(calls) == 2
    assert all(span.trace_id.hex() != flow_id for span in calls), "a call keeps its caller's trace"
    about = [{attribute.key: attribute.value.string_value for attribute in span.attributes} for span in calls]
    assert [attributes["handrail.flow_id"] for attributes in about] == [flow_id] * 2
