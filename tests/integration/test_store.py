"""Reading and appending to flows on a real server."""

import asyncio
from dataclasses import replace

import pytest

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError, WrongSequence
from handrail.mesh.streams import outcomes
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import Appended, FlowStore
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from payments.v1.payments_pb2 import Risk
from tests.support import flows
from tests.support.flows import FLOW_ID
from tests.support.mesh import publish
from tests.support.nats_server import NatsServer
from tests.support.raw_client import raw_client


@pytest.fixture
async def with_template(catalog: Catalog) -> None:
    await catalog.put(flows.stored(flows.template()))


def halt(reason: str, based_on: int) -> Entry:
    return flows.decision(FlowHalted(mode=HaltMode.HALT_MODE_HOLD, reason=reason), based_on=based_on)


async def test_a_flow_is_read_whole_in_stream_order(bus: Bus, store: FlowStore) -> None:
    await publish(bus, flows.start(), flows.start("f" * 32), flows.enriched())
    last = await publish(bus, flows.notified())
    history = await store.read("refund", FLOW_ID, at_least=last)
    assert [recorded.sequence for recorded in history] == [1, 3, 4]
    assert [recorded.type for recorded in history] == [flows.RECEIVED, flows.ENRICHED, flows.NOTIFIED]
    assert not history.malformed


async def test_a_flow_can_be_read_as_it_stood(bus: Bus, store: FlowStore) -> None:
    await publish(bus, flows.start(), flows.enriched(), flows.notified())
    assert [recorded.sequence for recorded in await store.read("refund", FLOW_ID, up_to=2)] == [1, 2]


async def test_a_flow_that_is_not_there_is_empty_and_can_not_be_loaded(store: FlowStore) -> None:
    assert await store.read("refund", FLOW_ID) == []
    with pytest.raises(HandrailError, match=FLOW_ID) as refusal:
        await store.load("refund", FLOW_ID)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_FLOW_NOT_FOUND


async def test_a_flow_of_a_template_that_is_not_stored_can_not_be_loaded(bus: Bus, store: FlowStore) -> None:
    await publish(bus, flows.start())
    with pytest.raises(HandrailError) as refusal:
        await store.load("refund", FLOW_ID)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND


@pytest.mark.usefixtures("with_template")
async def test_loading_folds_with_the_pinned_version(bus: Bus, store: FlowStore) -> None:
    last = await publish(bus, flows.start(), flows.enriched())
    flow = await store.load("refund", FLOW_ID, at_least=last)
    assert flow.last_sequence == last
    assert flow.template.version == 1
    assert set(flow.facts) == {ids.start_id(FLOW_ID), flows.enriched().address.event_id}


@pytest.mark.parametrize("number", [1024, 1025, 2500])
async def test_a_flow_beyond_what_one_read_can_give_is_read_whole(bus: Bus, store: FlowStore, number: int) -> None:
    subjects = [f"flow.refund.{FLOW_ID}.progress.flood.{index:032x}.x.v1.Noise" for index in range(number)]
    sequences = await asyncio.gather(*(bus.publish(subject, b"") for subject in subjects))
    history = await store.read("refund", FLOW_ID, at_least=max(sequences))
    assert [each.subject for each in history.malformed] == subjects


async def test_a_large_flow_is_read_whole_though_subjects_of_it_are_no_text(
    bus: Bus, store: FlowStore, nats_server: NatsServer
) -> None:
    flow = f"flow.refund.{FLOW_ID}.progress.flood"
    sequences = await asyncio.gather(*(bus.publish(f"{flow}.{index:032x}.x.v1.Noise", b"") for index in range(1100)))
    async with raw_client(nats_server.url) as agent:
        odd = [await agent.publish(b"%b.\xff%d.x.v1.Noise" % (flow.encode(), index), b"") for index in range(2)]
    history = await store.read("refund", FLOW_ID, at_least=max(odd))
    assert [each.sequence for each in history.malformed] == [*sequences, *odd]


@pytest.mark.usefixtures("with_template")
async def test_p5_what_can_not_be_read_is_void_with_its_reason_and_stands_in_nobodys_way(
    bus: Bus, store: FlowStore
) -> None:
    await publish(bus, flows.start())
    address = flows.enriched().address._replace(event_id="e" * 32)
    garbage = await bus.publish(address.subject, b"\xff\xff")
    flow = await store.load("refund", FLOW_ID, at_least=garbage)
    assert flow.void[garbage].reason == ErrorReason.ERROR_REASON_MALFORMED
    assert flow.last_sequence == garbage
    assert flow.message_count == 2
    assert (await store.append(flow, halt("look", garbage))).sequence == garbage + 1


@pytest.mark.usefixtures("with_template")
async def test_p4_of_two_decisions_on_the_same_state_one_is_appended(bus: Bus, store: FlowStore) -> None:
    last = await publish(bus, flows.start())
    for _ in range(20):
        flow = await store.load("refund", FLOW_ID, at_least=last)
        answers = await asyncio.gather(
            *(store.append(flow, halt(reason, flow.last_sequence + offset)) for offset, reason in enumerate("abc")),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, WrongSequence) for answer in answers) == 2
        last = sum(answer.sequence for answer in answers if isinstance(answer, Appended))
        assert last > flow.last_sequence


@pytest.mark.usefixtures("with_template")
async def test_p2_an_append_that_is_there_already_counts(bus: Bus, store: FlowStore) -> None:
    flow = await store.load("refund", FLOW_ID, at_least=await publish(bus, flows.start()))
    first = await store.append(flow, halt("look", 1))
    await publish(bus, flows.enriched())
    assert await store.append(flow, halt("look", 1)) == Appended(first.sequence, is_new=False)
    with pytest.raises(WrongSequence):
        await store.append(flow, halt("something else under the same id", 1))


@pytest.mark.usefixtures("with_template")
async def test_p4_a_flow_that_moved_on_takes_no_decision(bus: Bus, store: FlowStore) -> None:
    flow = await store.load("refund", FLOW_ID, at_least=await publish(bus, flows.start()))
    moved = await publish(bus, flows.enriched())
    with pytest.raises(WrongSequence) as refusal:
        await store.append(flow, halt("look", 1))
    assert refusal.value.last_sequence == moved


async def test_p3_a_stored_outcome_is_found_whatever_its_type(bus: Bus) -> None:
    await publish(bus, flows.start(), flows.enriched(message=flows.enrichment(Risk.RISK_HIGH)))
    other = flows.enriched(message=flows.received(), kind=Kind.PROPOSAL)
    with pytest.raises(AlreadyStored):
        await publish(bus, flows.enriched())
    found = await outcomes.stored(bus, other.address)
    assert found is not None
    assert found.type == flows.ENRICHED
    assert found.event.data != flows.enriched().event.data


async def test_the_outcome_of_a_released_proposal_is_the_proposal(bus: Bus) -> None:
    await publish(bus, flows.start(), flows.enriched(kind=Kind.PROPOSAL), flows.enriched(kind=Kind.RELEASED))
    found = await outcomes.stored(bus, flows.enriched().address)
    assert found is not None
    assert found.kind is Kind.PROPOSAL


async def test_an_outcome_that_is_not_there_is_none(bus: Bus) -> None:
    assert await outcomes.stored(bus, flows.enriched().address) is None


@pytest.mark.usefixtures("with_template")
async def test_the_same_flow_is_folded_whatever_was_read_in_between(bus: Bus, store: FlowStore) -> None:
    last = await publish(bus, flows.start(), flows.enriched(), flows.notified())
    whole = await store.load("refund", FLOW_ID, at_least=last)
    history = await store.read("refund", FLOW_ID)
    parts = await store.fold("refund", FLOW_ID, list(history))
    assert replace(whole, template=parts.template) == parts
