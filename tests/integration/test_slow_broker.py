"""A broker that stops to read or to answer: what waits for it is limited, and nothing waits for it for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.safe_transport import SafeTransport
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams import FLOW, ensure_streams
from tests.support.nats_server import NatsServer
from tests.support.waiting import Outcomes, until

BODY = bytes(64 << 10)
LATER = timedelta(hours=1)
LIMIT = 1 << 20


async def pause(server: NatsServer) -> None:
    """Pauses the server, and waits until it is."""
    server.pause()
    await until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


async def fill(bus: NatsBus, outcomes: Outcomes, *, timeout: timedelta = LATER) -> list[str]:
    """Publishes to a paused broker until the connection takes no more, and 1 MiB more than that."""
    subjects: list[str] = []
    while len(outcomes.told) < 16 and not (timeout < LATER and bus.connection.outbox.waits and len(subjects) > 200):
        subjects.append(f"flow.refund.{len(subjects)}")
        bus.publish_nowait(subjects[-1], BODY, outcomes.of(subjects[-1]), timeout=timeout)
        await asyncio.sleep(0)
    return subjects


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_waits_for_a_broker_that_does_not_read_is_limited_and_arrives_when_it_reads_again(
    nats_server: NatsServer, run: Callable[[Coroutine[None, None, int]], int]
) -> None:
    """Workers and coordinators run on uvloop, commands on asyncio's own loop."""

    async def limited() -> int:
        async with await NatsBus.connect(nats_server.settings()) as bus:
            await ensure_streams(bus)
            return await fill_and_empty(nats_server, bus)

    assert run(limited()) == 16


async def fill_and_empty(nats_server: NatsServer, bus: NatsBus) -> int:
    """Checks what is kept for a paused server, and that it is stored afterwards; the number of refusals."""
    outcomes = Outcomes()
    bus.connection.outbox._limit = LIMIT
    await pause(nats_server)
    subjects = await fill(bus, outcomes)
    transport = bus.connection.client._transport
    assert isinstance(transport, SafeTransport)
    assert transport._stream is not None
    assert transport._stream.transport is not None
    assert bus.connection.outbox._size <= LIMIT
    assert transport._stream.transport.get_write_buffer_size() <= LIMIT
    refused = [subject for subject, outcome in outcomes.told.items() if isinstance(outcome, BrokerUnavailable)]
    nats_server.resume()
    await until(lambda: len(outcomes.told) == len(subjects))
    assert all(isinstance(outcomes.told[subject], int) for subject in subjects if subject not in refused)
    assert not outcomes.twice
    return len(refused)


async def test_publishes_without_an_answer_are_limited(
    nats_server: NatsServer, bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.mesh.bus.publish.UNANSWERED_LIMIT", 3 * len(BODY))
    outcomes = Outcomes()
    nats_server.kill()
    await until(lambda: not bus.connection.connected)
    for name in ("a", "b", "c", "d"):
        bus.publish_nowait(f"flow.refund.{name}", BODY, outcomes.of(name), timeout=LATER)
    await until(lambda: outcomes.told)
    assert "have no answer from the broker yet" in str(outcomes.told["d"])
    nats_server.start()
    await until(lambda: len(outcomes.told) == 4)
    assert [outcomes.told[name] for name in ("a", "b", "c")] == [1, 2, 3]
    assert await bus.publish("flow.refund.e", BODY) == 4


@pytest.mark.parametrize("restarts", [True, False], ids=["after a restart", "when it is read again"])
async def test_p3_what_was_given_up_before_it_was_sent_is_never_stored(
    nats_server: NatsServer, bus: NatsBus, restarts: bool
) -> None:
    """Its sender may have looked for it, and told somebody that it did not happen."""
    outcomes = Outcomes()
    await pause(nats_server)
    subjects = await fill(bus, outcomes, timeout=timedelta(seconds=2))
    unsent = {line.split(b" ", 2)[1].decode() for line in bus.connection.outbox._lines}
    assert unsent & set(subjects)
    await until(lambda: len(outcomes.told) == len(subjects))
    if restarts:
        nats_server.kill()
        nats_server.start()
    else:
        nats_server.resume()
    await bus.publish("flow.refund.last", b"last")
    page = await bus.direct_get(FLOW, multi_last=["flow.>"])
    assert page.messages[-1].subject == "flow.refund.last"
    assert not unsent & {message.subject for message in page.messages}


async def test_a_broker_that_does_not_read_is_left_in_time(nats_server: NatsServer, bus: NatsBus) -> None:
    await pause(nats_server)
    await fill(bus, Outcomes(), timeout=timedelta(milliseconds=500))
    async with asyncio.timeout(20):
        await bus.close()
    assert bus.closed.is_set()


async def test_the_answer_to_a_ping_that_nobody_waits_for_any_more_ends_nothing(
    nats_server: NatsServer, bus: NatsBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    reading = bus.connection.client._reading_task
    assert reading is not None
    await pause(nats_server)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await bus.connection.flush(timedelta(0))
    nats_server.resume()
    await bus.connection.flush(timedelta(seconds=20))
    assert await bus.publish("flow.refund.a", b"") == 1
    assert not reading.done()
    assert caplog.records == []
