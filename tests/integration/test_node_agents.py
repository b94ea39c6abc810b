"""The agents of `examples/node`, without the SDK: killed, cancelled and delivered to again, money moves once, and never
in a flow that was halted before it began. One publishes through the coordinator, one for itself.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from handrail.mesh.contracts import Contracts, pack
from handrail.mesh.permissions import RETENTION
from handrail.mesh.streams import FLOW
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1 import flow_service_pb2
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.validate import validate_pb2
from payments.v1 import payments_pb2
from payments.v1.payments_pb2 import ChargebackReceived, LargeRefundGranted, SmallRefundGranted
from tests.support.accounts import seed_file
from tests.support.house import House, building
from tests.support.mesh import publish
from tests.support.node import DESCRIPTORS, NodeAgent, installed, running
from tests.support.people import People
from tests.support.purging import left, purge, quarantined
from tests.support.waiting import eventually, until

TEMPLATE = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
completes_with: [payments.v1.RefundPaid]
deadline: 3600s
steps:
  - name: grant
    agent: refunds
    after: [payments.v1.ChargebackReceived]
    emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted]
    effect: NONE
    timeout: 600s
  - name: pay
    agent: ledger
    after: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted]
    emits: [payments.v1.RefundPaid]
    effect: UNDOABLE
    timeout: 600s
    undo: {timeout: 600s, emits: [payments.v1.RefundReversed]}
"""
ACK_WAIT = timedelta(seconds=1.5)
"""What a killed process had in its hands comes again sooner than in an installation."""

# What npm has to fetch may take its time: that is no fault of the agents'.
pytestmark = pytest.mark.timeout(600)

KINDS = ("coordinated.js", "standalone.js")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples with their dependencies."""
    return installed(tmp_path_factory.mktemp("examples"))


class Bench:
    """An installation with a coordinator, the ledger as a process of the examples, and its bank."""

    def __init__(self, house: House, people: People, node: Path) -> None:
        self.house, self.people, self._node = house, people, node
        folder = house.folder
        (folder / "token").write_text(people.api.token("ledger", agent="ledger"))
        self._books = folder / "books"
        self._environment = {
            "NATS_URL": house.server.url,
            "NATS_NKEY_FILE": str(seed_file(house.server, "ledger")),
            "HANDRAIL_ADDRESS": people.api.address,
            "HANDRAIL_TOKEN_FILE": str(folder / "token"),
            "HANDRAIL_DESCRIPTORS": str(DESCRIPTORS),
            "BANK_FOLDER": str(self._books),
        }

    def agent(
        self, kind: str, *, bank_delay_ms: int = 0, safe_age_ms: int | None = None
    ) -> AbstractContextManager[NodeAgent]:
        """The ledger as a process. With `safe_age_ms`, messages are old that soon."""
        given = {**self._environment, "BANK_DELAY_MS": str(bank_delay_ms)}
        if safe_age_ms is not None:
            given["SAFE_AGE_MS"] = str(safe_age_ms)
        return running(self._node, kind, given)

    def booked(self) -> Counter[str]:
        """What the bank booked, by kind."""
        return Counter(json.loads(path.read_text())["kind"] for path in self._books.glob("*.json"))

    async def put(self, template: Template) -> None:
        """Store and activate a version; what a killed process had in its hands comes again soon."""
        await self.house.mesh.put(template)
        await self.house.mesh.set_ack_wait("ledger", ACK_WAIT)

    async def deliver_everything_again(self) -> None:
        """Make the ledger's durable anew."""
        durable = "FLOW.agent-ledger"
        config = (await self.house.mesh.durable("ledger"))["config"]
        admin = await self.house.connect("admin")
        await admin.request_json(f"$JS.API.CONSUMER.DELETE.{durable}")
        request = {"stream_name": FLOW, "config": config, "action": ""}
        await admin.request_json(f"$JS.API.CONSUMER.CREATE.{durable}", request)

    async def settled(self) -> None:
        """Wait until the ledger's durable has nothing left to deliver, and nothing under way."""
        await self.house.mesh.until_settled("ledger")

    async def start(self, number: int) -> str:
        """Begin a flow; returns its id."""
        received = ChargebackReceived(chargeback_id=f"cb-{number}", account_id="acc-1")
        received.amount.currency_code, received.amount.units = "EUR", 40
        return (await self.people.start(received, key=f"cb-{number}")).flow_id

    async def grant(self, flow_id: str) -> None:
        """Grant a small refund, for the agent that may."""
        request = flow_service_pb2.PublishEventRequest(
            flow_id=flow_id, flow_type="refund", step="grant", root=ids.start_id(flow_id), attempt=1, output_total=1,
            data=pack(granted(SmallRefundGranted, 40)),
        )  # fmt: skip
        await self.people.flows.PublishEvent(request, metadata=self.people.by("refunds", agent="refunds"))

    async def say(self, flow_id: str, grant: SmallRefundGranted | LargeRefundGranted, *, version: int) -> None:
        """Publish a grant on the bus, as a program of the agent's may that expects nothing of what is there."""
        root, data = ids.start_id(flow_id), pack(grant)
        event = Event(
            event_id=ids.outcome_id(flow_id, "grant", root, 0, 0), source="refunds", flow_type="refund", root=root,
            flow_id=flow_id, template_version=version, step="grant", attempt=1, output_total=1, data=data,
        )  # fmt: skip
        event.time.GetCurrentTime()
        name = grant.DESCRIPTOR.full_name
        entry = Entry(Address("refund", flow_id, Kind.EVENT, "refunds", event.event_id, name), event)
        await publish(await self.house.connect("refunds"), entry)

    async def types(self, flow_id: str) -> list[tuple[str, bool]]:
        """The messages of a flow by short name, and whether they count."""
        listed = await self.people.events(flow_id)
        return [(each.event.data.type_url.rpartition(".")[2], not each.void_reason) for each in listed]


def granted(kind: type[Any], units: int) -> Any:
    message = kind(chargeback_id="cb", account_id="acc-1", email="kim@example.com")
    message.amount.currency_code, message.amount.units = "EUR", units
    return message


def template(*, version: int = 1, longest_transfer_id: int = 0) -> Template:
    """The flow type; with a bound on the transfer's id that the ledger does not know of."""
    contracts = Contracts.from_messages(
        getattr(payments_pb2, name) for name in payments_pb2.DESCRIPTOR.message_types_by_name
    )
    proto = load_yaml(TEMPLATE)
    proto.version = version
    compiled = Template.compile(proto, contracts)
    if not longest_transfer_id:
        return compiled
    descriptors = FileDescriptorSet.FromString(compiled.descriptor_set)
    for file in descriptors.file:
        for message in file.message_type:
            for field in message.field:
                if (message.name, field.name) == ("RefundPaid", "transfer_id"):
                    field.options.Extensions[validate_pb2.field].string.max_len = longest_transfer_id
    return Template.compile(proto, Contracts.from_descriptor_set(descriptors.SerializeToString()))


@pytest.fixture
async def bench(tmp_path: Path, node: Path) -> AsyncIterator[Bench]:
    async with building(tmp_path, template()) as house, house.coordinator() as people:
        await house.mesh.set_ack_wait("ledger", ACK_WAIT)
        yield Bench(house, people, node)


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_again_and_again_every_flow_is_paid_once(bench: Bench, kind: str) -> None:
    """P8: whatever was under way when the process died is done again under its key."""
    flow_ids = [await bench.start(number) for number in range(12)]
    for flow_id in flow_ids:
        await bench.grant(flow_id)
    for paid in (2, 5):
        with bench.agent(kind, bank_delay_ms=200) as agent:
            await agent.ready()
            await until(lambda paid=paid: bench.booked()["refund"] >= paid)  # type: ignore[misc]
            agent.kill()
    with bench.agent(kind) as agent:
        await agent.ready()
        for flow_id in flow_ids:
            await bench.people.until_status(flow_id, "COMPLETED")
        await bench.settled()
    assert bench.booked() == {"refund": len(flow_ids)}
    for flow_id in flow_ids:
        found = await bench.types(flow_id)
        assert found.count(("RefundPaid", True)) == 1
        assert {name for name, _ in found} == {"ChargebackReceived", "SmallRefundGranted", "RefundPaid"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_that_was_cancelled_before_the_agent_began_is_not_paid(bench: Bench, kind: str) -> None:
    flow_id = await bench.start(1)
    await bench.grant(flow_id)
    await bench.people.cancel(flow_id)
    with bench.agent(kind) as agent:
        await agent.ready()
        await bench.people.until_status(flow_id, "CANCELLED")
        await bench.settled()
    assert bench.booked() == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_payment_under_way_when_process_and_flow_ended_is_known_and_taken_back(bench: Bench, kind: str) -> None:
    flow_id = await bench.start(1)
    await bench.grant(flow_id)
    with bench.agent(kind, bank_delay_ms=60_000) as agent:
        await until(lambda: bench.booked()["refund"])
        agent.kill()
    await bench.people.cancel(flow_id)
    with bench.agent(kind) as agent:
        await agent.ready()
        await bench.people.until_status(flow_id, "CANCELLED")
        await bench.settled()
    assert bench.booked() == {"refund": 1, "reversal": 1}
    assert ("RefundReversed", True) in await bench.types(flow_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_delivered_again_after_it_was_done_is_not_done_again(bench: Bench, kind: str) -> None:
    flow_ids = [await bench.start(number) for number in range(3)]
    for flow_id in flow_ids:
        await bench.grant(flow_id)
    with bench.agent(kind) as agent:
        await agent.ready()
        for flow_id in flow_ids:
            await bench.people.until_status(flow_id, "COMPLETED")
        await bench.settled()
    before = [await bench.types(flow_id) for flow_id in flow_ids]
    await bench.deliver_everything_again()
    with bench.agent(kind) as agent:
        await agent.ready()
        await bench.settled()
    assert bench.booked() == {"refund": len(flow_ids)}
    assert [await bench.types(flow_id) for flow_id in flow_ids] == before


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_breaks_the_flows_contract_takes_no_place_and_is_told(bench: Bench, kind: str) -> None:
    """P5: the id of an answer is there once. What can't be told in the version's terms waits for a person."""
    await bench.put(template(version=2, longest_transfer_id=3))
    flow_id = await bench.start(1)
    await bench.grant(flow_id)
    with bench.agent(kind) as agent:
        await agent.ready()
        flow = await bench.people.until_status(flow_id, "ESCALATED")
        await bench.settled()
    assert [name for name, _ in await bench.types(flow_id)].count("RefundPaid") == 0
    (pay,) = [run for run in flow.step_runs if run.step == "pay"]
    assert (pay.outcome_unknown, "transfer_id" in pay.last_error) == (True, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_does_not_count_is_not_taken_for_the_one_whose_id_it_has(bench: Bench, kind: str) -> None:
    flow_id = await bench.start(1)
    await bench.say(flow_id, granted(LargeRefundGranted, 5000), version=99)
    await bench.say(flow_id, granted(SmallRefundGranted, 40), version=1)
    with bench.agent(kind) as agent:
        await agent.ready()
        flow = await bench.people.until_status(flow_id, "COMPLETED")
        await bench.settled()
    assert bench.booked() == {"refund": 1}
    (pay,) = [run for run in flow.step_runs if run.step == "pay"]
    (paid,) = [each for each in flow.effects if each.event_id in pay.output_ids]
    stored = await bench.house.mesh.bus.request_json(f"$JS.API.STREAM.MSG.GET.{FLOW}", {"seq": paid.sequence})
    assert amount_of(stored["message"]["data"]) == 40


async def test_p8_an_answer_that_comes_late_says_so_and_counts(bench: Bench) -> None:
    flow_id = await bench.start(1)
    await bench.grant(flow_id)
    with bench.agent("standalone.js", safe_age_ms=0) as agent:
        await agent.ready()
        await bench.people.until_status(flow_id, "COMPLETED")
        await bench.settled()
    assert bench.booked() == {"refund": 1}
    paid = [each.event for each in await bench.people.events(flow_id) if each.event.step == "pay"]
    assert [each.late for each in paid] == [True]


async def test_p3_nothing_is_said_in_a_flow_that_was_purged_while_the_agent_worked(bench: Bench) -> None:
    """What the agent would have said of its effect is in quarantine; the flow stays purged."""
    mesh = bench.house.mesh
    flow_id = await bench.start(1)
    await bench.grant(flow_id)
    with bench.agent("standalone.js", bank_delay_ms=2_000, safe_age_ms=0) as agent:
        await agent.ready()
        await until(lambda: bench.booked()["refund"])
        await purge(await bench.house.connect(RETENTION), mesh.store, flow_id)
        kept = await eventually(lambda: quarantined(mesh.bus), bool)
        await bench.settled()
    (record,) = kept.values()
    assert (record.reason, record.stream_sequence) == (ErrorReason.ERROR_REASON_FLOW_ARCHIVED, 0)
    assert Event.FromString(record.body).late
    assert "may have had an effect" in record.detail
    assert await left(mesh.bus, flow_id) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_p3_a_message_of_a_purged_flow_is_acked_and_nothing_is_done(bench: Bench, kind: str) -> None:
    mesh = bench.house.mesh
    flow_id = await bench.start(1)
    await purge(await bench.house.connect(RETENTION), mesh.store, flow_id)
    await bench.say(flow_id, granted(SmallRefundGranted, 40), version=1)
    with bench.agent(kind, safe_age_ms=0) as agent:
        await agent.ready()
        await bench.settled()
    assert bench.booked() == {}
    assert [each.type for each in await left(mesh.bus, flow_id)] == [SmallRefundGranted.DESCRIPTOR.full_name]


def amount_of(body: str) -> int:
    paid = payments_pb2.RefundPaid.FromString(Event.FromString(b64decode(body)).data.value)
    return int(paid.amount.units)
