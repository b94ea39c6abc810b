"""Pulling where the agent's account is another than the stream's, as the generated permissions have it."""

import asyncio
from datetime import timedelta
from pathlib import Path

from handrail.coordinator.lists.bulk_read import scan
from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.permissions import Credentials, render, users
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.durables import ensure_durables
from tests.conftest import Connect
from tests.support import flows
from tests.support.nats_server import NatsServer, running_server
from tests.support.waiting import until

SUBJECT = "flow.refund.{number}.event.detection.E." + flows.RECEIVED


async def test_p5_empty_messages_hold_up_no_others(tmp_path: Path, connect: Connect) -> None:
    with running_server(tmp_path / "nats", accounts=configuration()) as server:
        coordinator, agent = await connect_both(server, connect)
        seen: list[Delivery] = []

        def on_delivery(delivery: Delivery) -> None:
            seen.append(delivery)
            delivery.ack()

        pull = await agent.pull(FLOW, "agent-enrichment", in_flight=20, on_delivery=on_delivery)
        await coordinator.publish(SUBJECT.format(number="empty"), b"")
        # The broker takes it for the end of all answers; the worker asks anew, from elsewhere, and for one at a time.
        await until(lambda: pull.moves == 1)
        await agent.connection.flush(timedelta(seconds=5))  # until the broker knows it
        await asyncio.gather(*(coordinator.publish(SUBJECT.format(number=n), b"full" * (n % 2)) for n in range(60)))
        await until(lambda: len(seen) == 61)
        # Each once: nothing was handed out into the void, to come again when the wait for its ack was over.
        assert [delivery.delivered for delivery in seen] == [1] * 61
        assert pull.moves == 1
        await pull.stop()


def configuration() -> str:
    everybody = users([flows.template().proto])
    return render(everybody, {user.name: Credentials(password="secret") for user in everybody})


async def connect_both(server: NatsServer, connect: Connect) -> tuple[NatsBus, NatsBus]:
    coordinator = await connect(server.settings("coordinator", user="coordinator", password="secret"))
    await ensure_streams(coordinator)
    await ensure_durables(coordinator, [flows.template()])
    return coordinator, await connect(server.settings("enrichment", user="enrichment", password="secret"))


async def test_p5_empty_messages_hold_up_no_list(tmp_path: Path, connect: Connect) -> None:
    with running_server(tmp_path / "nats", accounts=configuration()) as server:
        coordinator, _ = await connect_both(server, connect)
        bodies = [b"" if number % 2 else b"full" for number in range(60)]
        for number, body in enumerate(bodies):
            await coordinator.publish(SUBJECT.format(number=number), body)
        # Without noticing them, each would cost two seconds of silence.
        async with asyncio.timeout(30), scan(coordinator, FLOW, "flow.>", up_to=len(bodies)) as scanning:
            assert [stored.body async for page in scanning.pages() for stored in page] == bodies
