"""What the broker calls too large is not sent, and not sent again: whoever said it hears so, and the flow shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from google.protobuf.api_pb2 import Mixin
from google.protobuf.source_context_pb2 import SourceContext

from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.publish import ROOM
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import TooLarge
from handrail.mesh.flow import RunState
from handrail.mesh.fold import status
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import EscalationCause, FlowStatus
from payments.v1.payments_pb2 import CustomerNotified
from tests.conftest import Connect
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.nats_server import NatsServer, running_server
from tests.support.raw_client import raw_client
from tests.support.simulation import Simulation
from tests.support.waiting import eventually

LIMIT = 1 << 20


async def test_headers_count(bus: NatsBus) -> None:
    headers = {"traceparent": "00-aa-bb-01"}
    with pytest.raises(TooLarge) as refusal:
        await bus.publish("flow.refund.f.a", b"x" * (LIMIT - 10), headers=headers)
    assert int(refusal.value.metadata["size"]) > LIMIT
    with pytest.raises(TooLarge):
        await bus.publish("flow.refund.f.a", b"x" * LIMIT, expected_sequence=0)
    assert await bus.publish("flow.refund.f.a", b"x" * (LIMIT - 42), headers=headers) == 1


@pytest.mark.parametrize("kind", ["event", "proposal"])
async def test_what_may_be_said_again_leaves_room_for_it(bus: NatsBus, kind: str) -> None:
    with pytest.raises(TooLarge):
        await bus.publish(f"flow.refund.f.{kind}.a.b.c", b"x" * (LIMIT - ROOM + 1))
    assert await bus.publish(f"flow.refund.f.{kind}.a.b.c", b"x" * (LIMIT - ROOM)) == 1


async def test_what_the_broker_calls_too_large_is_not_sent_again_and_the_rest_goes_on(
    tmp_path: Path, connect: Connect
) -> None:
    """Its limit was lowered behind our back."""
    with running_server(tmp_path / "nats") as server:
        bus = await connect(server.settings("coordinator"))
        config = {"name": "FLOW", "subjects": ["flow.>"]}
        await bus.request_json("$JS.API.STREAM.CREATE.FLOW", config)
        server.write_config(extra="max_payload: 4096")
        server.reload()
        with pytest.raises(TooLarge, match=r"flow\.a"):
            await publish_until_refused(bus, "flow.a", b"x" * 8000)
        assert await bus.publish("flow.b", b"small") > 0
        assert not bus.closed.is_set()
        assert bus.connection.max_payload == 4096


async def publish_until_refused(bus: NatsBus, subject: str, body: bytes) -> None:
    """Publish again and again: a reload takes effect a moment later."""
    while True:
        await bus.publish(subject, body)


def filled(entry_with: Callable[[str], Entry]) -> Entry:
    """An entry that the broker just takes, without any headers."""
    around = len(entry_with("x" * LIMIT).body) - LIMIT
    entry = entry_with("x" * (LIMIT - around))
    assert len(entry.body) == LIMIT
    return entry


def template() -> Template:
    """The small flow type with messages of any size, and a gate that asks nobody."""
    proto = flows.template(gated=True).proto
    first, second = (message.DESCRIPTOR.full_name for message in (SourceContext, Mixin))
    proto.starts_with[:] = [first]
    proto.steps[0].after[:], proto.steps[0].emits[:], proto.steps[1].after[:] = [first], [second], [second]
    proto.steps[0].retry.max_attempts = 3
    proto.gates[0].on, proto.gates[0].when = second, 'event.name == "nobody"'
    return Template.compile(proto, Contracts.from_messages([SourceContext, Mixin, CustomerNotified]))


@pytest.fixture
async def replica(bus: NatsBus) -> AsyncIterator[Replica]:
    """A running coordinator."""
    async with coordinating(bus) as replica:
        await replica.catalog.put(flows.stored(template()))
        yield replica


@pytest.mark.usefixtures("replica")
async def test_a_flow_whose_release_does_not_fit_waits_for_a_person_and_says_why(
    nats_server: NatsServer, store: FlowStore
) -> None:
    """Its agent left no room for it, as one that speaks to the broker by itself may."""
    proposal = filled(lambda text: flows.enriched(kind=Kind.PROPOSAL, message=Mixin(name=text)))
    async with raw_client(nats_server.url) as agent:
        for entry in (flows.start(message=SourceContext(file_name="small")), proposal):
            await agent.publish(entry.address.subject, entry.body)

    async def waits() -> bool:
        return status(await store.load("refund", flows.FLOW_ID)) == FlowStatus.FLOW_STATUS_ESCALATED

    await eventually(waits)
    (escalation,) = (await store.load("refund", flows.FLOW_ID)).escalations.values()
    assert escalation.cause == EscalationCause.ESCALATION_CAUSE_TOO_LARGE
    assert escalation.reason.startswith("TOO_LARGE: the message on ")
    assert str(LIMIT) in escalation.reason


@pytest.mark.usefixtures("replica")
async def test_a_command_that_would_be_too_large_comes_without_the_data_that_the_flow_has(
    bus: NatsBus, nats_server: NatsServer, store: FlowStore
) -> None:
    entry = filled(lambda text: flows.start(message=SourceContext(file_name=text)))
    async with raw_client(nats_server.url) as agent:
        await agent.publish(entry.address.subject, entry.body)
    (run,) = (await store.load("refund", flows.FLOW_ID)).runs.values()
    failed = Simulation(template(), flow_id=flows.FLOW_ID).failed(run, "no")
    await bus.publish(failed.address.subject, failed.body)

    async def retried() -> bool:
        return any(recorded.kind is Kind.RETRY for recorded in await store.read("refund", flows.FLOW_ID))

    await eventually(retried)
    flow = await store.load("refund", flows.FLOW_ID)
    assert not flow.void
    (run,) = flow.runs.values()
    assert (run.state, run.attempt) == (RunState.OWED, 2)
