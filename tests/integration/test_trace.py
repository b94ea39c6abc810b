"""One trace a flow, as a collector sees it: the payments demo, as six processes that export over OTLP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from handrail.mesh.wire import ids
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, ListApprovalsRequest
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.event_pb2 import Event
from handrail.v1.flow_service_pb2 import Approval, GetFlowRequest, ListFlowEventsRequest
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from tests.support.dev import Dev, running_dev, wait_for
from tests.support.otlp import Receiver, receiving

PROCESSES = {"coordinator", "detection", "enrichment", "refunds", "ledger", "notification"}

LARGE, UNDELIVERABLE = "cb-large", "cb-undeliverable"
AMOUNTS = {LARGE: 5_000, UNDELIVERABLE: 20}
ENDS = {LARGE: FlowStatus.FLOW_STATUS_COMPLETED, UNDELIVERABLE: FlowStatus.FLOW_STATUS_COMPENSATED}
FLOWS = {name: ids.flow_id_from_key("refund", name) for name in AMOUNTS}

CALLER_TRACE, CALLER_SPAN = "ab" * 16, "cd" * 8
TRACEPARENT = ("traceparent", f"00-{CALLER_TRACE}-{CALLER_SPAN}-01")


@dataclass(frozen=True)
class Evidence:
    """What a run left: the spans that were received, the logs by process, and the events of each flow."""

    receiver: Receiver
    logs: dict[str, str]
    events: dict[str, list[Event]]


class People:
    """Calls to the coordinator, each as part of a trace of the caller's."""

    def __init__(self, dev: Dev, channel: grpc.Channel) -> None:
        self._tokens = dev.ready["tokens"]
        self._flows = FlowServiceStub(channel)
        self._approvals = ApprovalServiceStub(channel)

    def approve(self) -> None:
        """Two people say yes to the only approval there will be."""
        found: list[Approval] = []

        def asked() -> bool:
            found[:] = self._approvals.ListApprovals(ListApprovalsRequest(), metadata=self._as("anna")).approvals
            return bool(found)

        wait_for(asked, "the large refund to wait for its approval")
        for person in ("anna", "ben"):
            vote = ApproveProposalRequest(approval_id=found[0].approval_id, digest=found[0].digest)
            self._approvals.ApproveProposal(vote, metadata=self._as(person))

    def has_ended(self, name: str) -> bool:
        """Whether a chargeback's flow has ended as it must."""
        try:
            got = self._flows.GetFlow(GetFlowRequest(flow_id=FLOWS[name]), metadata=self._as("vera"))
        except grpc.RpcError:  # it has not begun
            return False
        return bool(got.flow.status == ENDS[name])

    def events(self, flow_id: str) -> list[Event]:
        """A flow's events in stream order."""
        request = ListFlowEventsRequest(flow_id=flow_id, page_size=100)
        listed = self._flows.ListFlowEvents(request, metadata=self._as("vera"))
        return [recorded.event for recorded in listed.events]

    def _as(self, person: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._tokens[person]}"), TRACEPARENT)


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator[Dev]:
    """The demo on a large refund, and on a small one whose customer can't be reached."""
    chargebacks = folder / "chargebacks.jsonl"
    lines = (
        {"chargeback_id": name, "account_id": "acct-0001", "amount": {"currency_code": "EUR", "units": units}}
        for name, units in AMOUNTS.items()
    )
    chargebacks.write_text("\n".join(map(json.dumps, lines)))
    environment["PAYMENTS_CHARGEBACKS"] = str(chargebacks)
    environment["PAYMENTS_UNDELIVERABLE"] = json.dumps([UNDELIVERABLE])
    with running_dev(folder / "data", "--agents", "demos.payments", env=environment) as dev:
        yield dev


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    folder = tmp_path_factory.mktemp("traced")
    with receiving() as receiver:
        environment = {**receiver.environment, "HANDRAIL_LOG_LEVEL": "debug"}
        with demo(folder, **environment) as dev, grpc.insecure_channel(dev.ready["address"]) as channel:
            people = People(dev, channel)
            people.approve()
            for name in FLOWS:
                wait_for(partial(people.has_ended, name), f"the end of {name}")
            events = {flow_id: people.events(flow_id) for flow_id in FLOWS.values()}
            assert dev.stop() == 0  # what a process has not sent by now it sends when it ends
        logs = {path.stem: path.read_text() for path in (folder / "data" / "logs").iterdir()}
        yield Evidence(receiver, logs, events)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_one_trace_with_one_root_and_no_span_without_its_parent(evidence: Evidence, name: str) -> None:
    spans = evidence.receiver.trace(FLOWS[name])
    (root,) = [span for span in spans if not span.parent]
    assert (root.service, root.name) == ("detection", "start")
    received = Counter(span.span_id for span in spans)
    assert set(received.values()) == {1}
    assert {span.parent for span in spans if span is not root} <= received.keys()


def test_the_trace_has_spans_of_each_of_the_six_processes(evidence: Evidence) -> None:
    spans = evidence.receiver.trace(FLOWS[LARGE])
    assert {span.service for span in spans} == PROCESSES
    assert len({span.pid for span in spans}) == len(PROCESSES)


def test_every_event_carries_the_span_that_published_it(evidence: Evidence) -> None:
    for flow_id in FLOWS.values():
        received = {span.span_id: span.service for span in evidence.receiver.trace(flow_id)}
        published = [event for event in evidence.events[flow_id] if event.source != "coordinator"]
        assert published
        assert [received[event.span_id] for event in published] == [event.source for event in published]


def test_what_an_agent_does_is_a_child_of_what_caused_it(evidence: Evidence) -> None:
    spans = {span.span_id: span for span in evidence.receiver.trace(FLOWS[LARGE])}
    ancestry = []
    (span,) = [span for span in spans.values() if span.service == "notification" and span.name == "publish"]
    while span.parent:
        ancestry.append((span.service, span.name))
        span = spans[span.parent]
    agents = ("notification", "ledger", "refunds", "enrichment")
    assert ancestry == [(agent, name) for agent in agents for name in ("publish", "handle")]


def test_a_call_keeps_its_callers_trace_and_links_to_the_flows(evidence: Evidence) -> None:
    votes = [span for span in evidence.receiver.spans if span.name == "handrail.v1.ApprovalService/ApproveProposal"]
    assert len(votes) == 2
    started = next(span.span_id for span in evidence.receiver.trace(FLOWS[LARGE]) if not span.parent)
    for vote in votes:
        assert (vote.trace_id, vote.parent) == (CALLER_TRACE, CALLER_SPAN)
        assert vote.links == [(FLOWS[LARGE], started)]
        assert vote.service == "coordinator"


def test_logs_carry_the_flow_id(evidence: Evidence) -> None:
    (failure, *_) = [line for line in evidence.logs["notification"].splitlines() if "MailboxUnavailable" in line]
    assert f"flow {FLOWS[UNDELIVERABLE]}: step notify" in failure
    decided = [line for line in evidence.logs["coordinator"].splitlines() if "handrail.v1.ApprovalRequested" in line]
    assert len(decided) == 1
    assert f"flow {FLOWS[LARGE]}: " in decided[0]


def test_without_configuration_no_exporter_is_even_loaded_and_no_event_has_a_span(tmp_path: Path) -> None:
    # Has every process say what it imports.
    with demo(tmp_path, PYTHONPROFILEIMPORTTIME="1") as dev, grpc.insecure_channel(dev.ready["address"]) as channel:
        people = People(dev, channel)
        people.approve()
        wait_for(lambda: people.has_ended(LARGE), "the end of the flow")
        events = people.events(FLOWS[LARGE])
        for name in PROCESSES:
            imported = (dev.folder / "logs" / f"{name}.log").read_text()
            assert "handrail.mesh.telemetry" in imported
            assert "opentelemetry" not in imported
    assert {event.source for event in events} == PROCESSES
    assert not any(event.span_id for event in events)
