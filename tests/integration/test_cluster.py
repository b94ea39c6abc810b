"""The bus on three servers that replicate: leaders die and move, replicas lag."""

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest

from handrail.coordinator.reconcile.overdue import Overdue
from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.errors import AlreadyStored, WrongSequence
from handrail.mesh.streams import FLOW, ensure_streams, outcomes
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.streams.flow_store import Appended, FlowStore
from handrail.mesh.streams.lease_bucket import LeaseBucket
from handrail.mesh.wire.subjects import flow_filter
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from tests.conftest import Connect
from tests.support import flows
from tests.support.nats_server import NatsCluster
from tests.support.waiting import Outcomes, until

ELECTION = timedelta(seconds=60)

pytestmark = pytest.mark.timeout(240)


async def leader(bus: NatsBus) -> str:
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=ELECTION)
    return str(info["cluster"]["leader"])


@pytest.fixture
async def buses(nats_cluster: NatsCluster, cluster_bus: NatsBus, connect: Connect) -> list[NatsBus]:
    """One connection to each server."""
    return [await connect(server.settings("coordinator")) for server in nats_cluster.servers]


async def test_streams_are_replicated_and_checked_again(cluster_bus: NatsBus) -> None:
    await ensure_streams(cluster_bus, replicas=3)
    info = await cluster_bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    assert info["config"]["num_replicas"] == 3
    assert len(info["cluster"]["replicas"]) == 2


async def test_p3_of_publishers_at_all_servers_one_is_stored(buses: list[NatsBus]) -> None:
    for attempt in range(60):
        answers = await asyncio.gather(
            *(each.publish(f"flow.refund.{attempt}", b"") for each in (*buses, *buses)), return_exceptions=True
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert sum(isinstance(answer, AlreadyStored) for answer in answers) == 5


async def test_p3_of_different_outcomes_one_is_stored_and_all_find_it(buses: list[NatsBus]) -> None:
    for attempt in range(60):
        flow_id = f"{attempt:032x}"
        entries = [
            flows.enriched(flow_id),
            flows.enriched(flow_id, message=flows.received()),
            flows.enriched(flow_id, message=flows.told()),
        ]
        event_id = entries[0].address.event_id
        answers = await asyncio.gather(
            *(
                bus.publish(
                    entry.address.subject,
                    entry.body,
                    expected_sequence=0,
                    expected_filter=f"flow.refund.{flow_id}.*.enrichment.{event_id}.>",
                )
                for bus, entry in zip(buses, entries, strict=True)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert sum(isinstance(answer, WrongSequence) for answer in answers) == 2
        found = await asyncio.gather(
            *(outcomes.stored(bus, entry.address) for bus, entry in zip(buses, entries, strict=True))
        )
        assert len({each.type for each in found if each is not None}) == 1
        assert None not in found


async def test_p4_of_two_decisions_on_the_same_state_one_is_stored(buses: list[NatsBus]) -> None:
    for attempt in range(60):
        flow_id = f"{attempt:032x}"
        last = await buses[0].publish(f"flow.refund.{flow_id}.event", b"")
        answers = await asyncio.gather(
            *(
                each.publish(
                    f"flow.refund.{flow_id}.decision.{number}",
                    b"",
                    expected_sequence=last,
                    expected_filter=flow_filter("refund", flow_id),
                )
                for number, each in enumerate(buses)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1


async def test_p4_a_read_is_never_older_than_what_the_reader_knows(buses: list[NatsBus]) -> None:
    stores = [FlowStore(each, Catalog(each)) for each in buses]
    for attempt in range(200):
        flow_id = f"{attempt:032x}"
        entry = flows.start(flow_id)
        sequence = await buses[attempt % 3].publish(entry.address.subject, entry.body)
        histories = await asyncio.gather(
            *(store.read("refund", flow_id, at_least=sequence) for store in stores for _ in range(2))
        )
        assert [[recorded.sequence for recorded in history] for history in histories] == [[sequence]] * 6


async def test_a_large_flow_is_read_whole_from_every_server(buses: list[NatsBus]) -> None:
    subjects = [f"flow.refund.{flows.FLOW_ID}.progress.flood.{number:032x}.x.v1.Noise" for number in range(1500)]
    sequences = await asyncio.gather(*(buses[0].publish(subject, b"") for subject in subjects))
    for each in buses:
        store = FlowStore(each, Catalog(each))
        history = await store.read("refund", flows.FLOW_ID, at_least=max(sequences))
        assert len(history.malformed) == 1500


async def test_p2_an_append_counts_once_on_every_replica(buses: list[NatsBus]) -> None:
    catalogs = [Catalog(each) for each in buses]
    await catalogs[0].put(flows.stored(flows.template()))
    stores = [FlowStore(each, catalog) for each, catalog in zip(buses, catalogs, strict=True)]
    for attempt in range(40):
        flow_id = f"{attempt:032x}"
        entry = flows.start(flow_id)
        sequence = await buses[0].publish(entry.address.subject, entry.body)
        folded = [await store.load("refund", flow_id, at_least=sequence) for store in stores]
        halt = flows.decision(
            FlowHalted(mode=HaltMode.HALT_MODE_HOLD, reason="same"), flow_id=flow_id, based_on=sequence
        )
        answers = await asyncio.gather(
            *(store.append(flow, halt) for store, flow in zip(stores, folded, strict=True)), return_exceptions=True
        )
        # All decided the same: each is told the one sequence, or to read again.
        sequences = {answer.sequence for answer in answers if isinstance(answer, Appended)}
        assert len(sequences) == 1
        assert all(isinstance(answer, Appended | WrongSequence) for answer in answers)


async def test_p7_overdue_timers_are_found_in_a_replicated_queue(cluster_bus: NatsBus) -> None:
    assert await Overdue(cluster_bus).flows() == {}


async def test_consuming_goes_on_when_the_leader_of_the_durable_moves(cluster_bus: NatsBus) -> None:
    await ensure_durables(cluster_bus, [flows.template()])
    seen: set[str] = set()

    def on_delivery(delivery: Delivery) -> None:
        seen.add(delivery.subject)
        delivery.ack()

    pull = await cluster_bus.pull(FLOW, "agent-enrichment", in_flight=20, on_delivery=on_delivery)
    for number in range(4):
        entry = flows.start(f"{number:032x}")
        await cluster_bus.publish(entry.address.subject, entry.body)
        await until(partial(seen.__contains__, entry.address.subject))
        await cluster_bus.request_json(f"$JS.API.CONSUMER.LEADER.STEPDOWN.{FLOW}.agent-enrichment", timeout=ELECTION)
    await pull.stop()
    assert len(seen) == 4


async def test_p3_nothing_is_lost_or_stored_twice_when_the_leader_is_killed_under_load(
    nats_cluster: NatsCluster, cluster_bus: NatsBus
) -> None:
    await ensure_durables(cluster_bus, [flows.template()])
    delivered: Counter[str] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        delivered[delivery.subject] += 1
        delivery.ack()

    pull = await cluster_bus.pull(FLOW, "agent-enrichment", in_flight=100, on_delivery=on_delivery)
    outcomes = Outcomes()
    entries = [flows.start(f"{number:032x}") for number in range(3000)]
    killed = await leader(cluster_bus)
    for number, entry in enumerate(entries):
        subject = entry.address.subject
        cluster_bus.publish_nowait(subject, entry.body, outcomes.of(subject), timeout=timedelta(seconds=120))
        if number == 1500:
            await until(lambda: len(outcomes.told) > 200)
            nats_cluster.named(killed).kill()
    await until(lambda: len(outcomes.told) == len(entries), within=150)
    assert all(isinstance(outcome, int | AlreadyStored) for outcome in outcomes.told.values())
    assert not outcomes.twice
    await until(lambda: len(delivered) == len(entries), within=60)
    info = await cluster_bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=ELECTION)
    assert info["state"]["messages"] == len(entries)
    assert info["cluster"]["leader"] != killed
    await pull.stop()


async def test_a_lease_is_kept_while_its_leader_dies(nats_cluster: NatsCluster, cluster_bus: NatsBus) -> None:
    bucket = LeaseBucket(cluster_bus)
    revision = await bucket.acquire("duty.sweep", b"a", ttl=timedelta(minutes=5))
    assert revision is not None
    info = await cluster_bus.request_json("$JS.API.STREAM.INFO.KV_leases")
    nats_cluster.named(info["cluster"]["leader"]).kill()
    renewed = await _renewed(bucket, revision)
    assert renewed > revision
    with pytest.raises(WrongSequence):
        await bucket.acquire("duty.sweep", b"b", ttl=timedelta(minutes=5))


async def _renewed(bucket: LeaseBucket, revision: int) -> int:
    async with asyncio.timeout(ELECTION.total_seconds()):
        return await bucket.renew("duty.sweep", b"a", revision, ttl=timedelta(minutes=5))
