"""Consuming a durable over the bus from a real server."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams import FLOW
from tests.conftest import Connect
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually, until


async def make_durable(bus: NatsBus, name: str = "agent-a", **config: Any) -> None:
    wanted = {"durable_name": name, "ack_policy": "explicit", "max_ack_pending": -1, **config}
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{name}", {"stream_name": FLOW, "config": wanted})


async def publish(bus: NatsBus, number: int, first: int = 0) -> None:
    await asyncio.gather(*(bus.publish(f"flow.t.{n}", b"%d" % n) for n in range(first, first + number)))


def _at_least(counts: Counter[int], number: int) -> bool:
    return len(counts) >= number


async def all_settled(bus: NatsBus, name: str = "agent-a") -> None:
    async def nothing_left() -> bool:
        info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{name}")
        return not info["num_ack_pending"] and not info["num_pending"]

    await eventually(nothing_left)


async def test_every_message_is_delivered_once_and_acked(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 2000)
    seen: list[Delivery] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery)
        delivery.ack()

    pull = await bus.pull(FLOW, "agent-a", in_flight=100, on_delivery=on_delivery)
    await until(lambda: len(seen) == 2000)
    assert [delivery.sequence for delivery in seen] == list(range(1, 2001))
    assert seen[-1].pending == 0
    assert seen[0].delivered == 1
    assert abs(seen[0].time - datetime.now(UTC)) < timedelta(hours=1)
    await pull.stop()
    assert pull.unsettled == 0
    await all_settled(bus)


async def test_no_more_than_in_flight_are_unsettled(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 200)
    held: list[Delivery] = []
    most = done = 0

    def on_delivery(delivery: Delivery) -> None:
        nonlocal most
        held.append(delivery)
        most = max(most, len(held))

    pull = await bus.pull(FLOW, "agent-a", in_flight=7, on_delivery=on_delivery)
    while done < 200:
        await until(lambda: held)
        held.pop(0).ack()
        done += 1
    assert most == 7
    await pull.stop()


async def test_times_of_deliveries_and_reads_agree_to_the_microsecond(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 100)
    times: dict[int, datetime] = {}

    def on_delivery(delivery: Delivery) -> None:
        times[delivery.sequence] = delivery.time
        delivery.ack()

    pull = await bus.pull(FLOW, "agent-a", in_flight=100, on_delivery=on_delivery)
    await until(lambda: len(times) == 100)
    page = await bus.direct_get(FLOW, multi_last=["flow.>"])
    assert times == {message.sequence: message.time for message in page.messages}
    await pull.stop()


async def test_a_nak_delivers_again_and_counts(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 1)
    seen: list[Delivery] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery)
        if delivery.delivered == 1:
            delivery.nak()
        elif delivery.delivered == 2:
            delivery.nak(timedelta(milliseconds=50))
        else:
            delivery.ack()

    pull = await bus.pull(FLOW, "agent-a", in_flight=1, on_delivery=on_delivery)
    await until(lambda: len(seen) == 3)
    assert [delivery.delivered for delivery in seen] == [1, 2, 3]
    await pull.stop()
    await all_settled(bus)


async def test_a_settled_delivery_stays_settled(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 3)
    seen: list[Delivery] = []
    pull = await bus.pull(FLOW, "agent-a", in_flight=3, on_delivery=seen.append)
    await until(lambda: len(seen) == 3)
    for delivery in seen:
        delivery.ack()
        delivery.nak()
        delivery.in_progress()
    assert pull.unsettled == 0
    await pull.stop()
    await all_settled(bus)


async def test_term_ends_a_delivery_and_tells_why(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 1)
    advisories: list[bytes] = []
    await bus.subscribe(
        f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{FLOW}.agent-a", lambda message: advisories.append(message.data)
    )
    pull = await bus.pull(FLOW, "agent-a", in_flight=1, on_delivery=lambda delivery: delivery.term("unreadable"))
    await until(lambda: advisories)
    assert b"unreadable" in advisories[0]
    await pull.stop()
    await all_settled(bus)


async def test_in_progress_keeps_a_delivery_from_coming_again(bus: NatsBus) -> None:
    await make_durable(bus, ack_wait=3_000_000_000)  # a busy machine stalls for seconds
    await publish(bus, 2)
    seen: list[Delivery] = []
    pull = await bus.pull(FLOW, "agent-a", in_flight=10, on_delivery=seen.append)
    await until(lambda: len(seen) == 2)
    kept, left = seen

    async def keep() -> None:
        while True:
            kept.in_progress()
            await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep())
    await until(lambda: sum(delivery.sequence == left.sequence for delivery in seen) == 3)
    assert sum(delivery.sequence == kept.sequence for delivery in seen) == 1
    keeping.cancel()
    await pull.stop()


async def test_stopping_hands_back_what_was_not_begun(bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 500)
    seen: list[Delivery] = []
    pull = await bus.pull(FLOW, "agent-a", in_flight=500, on_delivery=seen.append)
    await until(lambda: seen)
    await pull.stop()
    begun = len(seen)
    for delivery in seen:
        delivery.ack()
    others: list[Delivery] = []

    def on_delivery(delivery: Delivery) -> None:
        others.append(delivery)
        delivery.ack()

    # At once, not after the wait for an ack: what was under way was handed back.
    second = await bus.pull(FLOW, "agent-a", in_flight=500, on_delivery=on_delivery)
    await until(lambda: len(others) == 500 - begun)
    await second.stop()
    assert not {delivery.sequence for delivery in seen} & {delivery.sequence for delivery in others}


async def test_two_workers_share_a_durable(nats_server: NatsServer, bus: NatsBus, connect: Connect) -> None:
    await make_durable(bus)
    await publish(bus, 1000)
    counts: Counter[int] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        counts[delivery.sequence] += 1
        delivery.ack()

    other = await connect(nats_server.settings("worker2"))
    pulls = [await each.pull(FLOW, "agent-a", in_flight=50, on_delivery=on_delivery) for each in (bus, other)]
    await until(lambda: len(counts) == 1000)
    assert set(counts.values()) == {1}
    for pull in pulls:
        await pull.stop()


async def test_a_missing_durable_is_reported_and_waited_for(bus: NatsBus) -> None:
    seen: list[Delivery] = []
    problems: list[HandrailError] = []
    await publish(bus, 3)
    pull = await bus.pull(FLOW, "agent-a", in_flight=5, on_delivery=seen.append, on_problem=problems.append)
    problem = await until(lambda: problems and problems[0])
    assert isinstance(problem, BrokerUnavailable)
    assert "FLOW/agent-a" in problem.text
    await make_durable(bus)
    await until(lambda: len(seen) == 3)
    await pull.stop()


async def test_a_deleted_durable_is_reported_and_waited_for(bus: NatsBus) -> None:
    seen: list[Delivery] = []
    problems: list[HandrailError] = []
    await make_durable(bus)
    await publish(bus, 1)
    pull = await bus.pull(FLOW, "agent-a", in_flight=5, on_delivery=seen.append, on_problem=problems.append)
    await until(lambda: len(seen) == 1)
    await bus.request_json(f"$JS.API.CONSUMER.DELETE.{FLOW}.agent-a")
    problem = await until(lambda: problems and problems[0])
    assert isinstance(problem, BrokerUnavailable)
    assert "FLOW/agent-a" in problem.text
    await make_durable(bus)
    await until(lambda: len(seen) == 2)
    await pull.stop()


async def test_consuming_goes_on_after_the_broker_was_killed(nats_server: NatsServer, bus: NatsBus) -> None:
    await make_durable(bus, ack_wait=1_000_000_000)
    await publish(bus, 1000)
    counts: Counter[int] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        counts[delivery.sequence] += 1
        delivery.ack()

    pull = await bus.pull(FLOW, "agent-a", in_flight=20, on_delivery=on_delivery)
    for part in (300, 600, 900):
        await until(partial(_at_least, counts, part))
        nats_server.kill()
        nats_server.start()
    await until(lambda: len(counts) == 1000)
    await publish(bus, 1, first=1000)
    await until(lambda: len(counts) == 1001)
    await pull.stop()
    assert set(counts) == set(range(1, 1002))


async def test_consuming_goes_on_when_the_broker_was_silent_for_a_while(nats_server: NatsServer, bus: NatsBus) -> None:
    await make_durable(bus)
    await publish(bus, 1)
    seen: list[Delivery] = []
    pull = await bus.pull(FLOW, "agent-a", in_flight=5, on_delivery=seen.append)
    await until(lambda: seen)
    made = pull.requests_made
    nats_server.pause()
    await until(lambda: pull.requests_made > made)
    nats_server.resume()
    await publish(bus, 3, first=1)
    await until(lambda: len({delivery.sequence for delivery in seen}) == 4)
    await pull.stop()
    assert {delivery.sequence for delivery in seen} == {1, 2, 3, 4}
