"""A read ends: with its answer however slowly that comes, or in time without one. Many at once do not disturb it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from handrail.mesh.bus import NatsBus, Page
from handrail.mesh.bus.direct_reads import AT_ONCE
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams import FLOW, ensure_streams
from tests.conftest import Connect
from tests.support.nats_server import NatsServer
from tests.support.slow_link import SlowLink, slow_link
from tests.support.waiting import until

MESSAGES = 12
READ = b"$JS.API.DIRECT.GET."


@pytest.fixture
async def link(nats_server: NatsServer) -> AsyncIterator[SlowLink]:
    async with slow_link(nats_server.port) as link:
        yield link


@pytest.fixture
async def bus(nats_server: NatsServer, link: SlowLink, connect: Connect) -> NatsBus:
    """A bus behind the link, with a flow of some messages."""
    bus = await connect(replace(nats_server.settings(), servers=(f"nats://127.0.0.1:{link.port}",)))
    await ensure_streams(bus)
    for number in range(MESSAGES):
        await bus.publish(f"flow.refund.f.{number}", b"x" * 100)
    return bus


def impatient(monkeypatch: pytest.MonkeyPatch, *, silence: int, longest: int = 1000) -> None:
    """Lets reads be repeated after so many ticks of a tenth of a second."""
    monkeypatch.setattr("handrail.mesh.bus.direct_reads._SILENCE", silence)
    monkeypatch.setattr("handrail.mesh.bus.direct_reads._LONGEST_SILENCE", longest)


async def read(bus: NatsBus, seconds: float = 20) -> Page:
    return await bus.direct_get(FLOW, multi_last=["flow.refund.f.>"], timeout=timedelta(seconds=seconds))


async def test_an_answer_that_keeps_coming_is_awaited_however_slow_it_is(
    bus: NatsBus, link: SlowLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole answer takes four times the silence after which a read is repeated."""
    impatient(monkeypatch, silence=4)
    link.piece, link.pause = 300, 0.1
    page = await read(bus)
    assert [message.subject for message in page.messages] == [f"flow.refund.f.{number}" for number in range(MESSAGES)]
    assert link.requests(READ) == 1


async def test_a_silent_broker_is_asked_ever_more_rarely_and_not_for_longer_than_agreed(
    bus: NatsBus, link: SlowLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, silence=1)
    link.answers.clear()
    begun = asyncio.get_running_loop().time()
    with pytest.raises(BrokerUnavailable, match="can't read from stream FLOW within 2 s: no answer"):
        await read(bus, seconds=2)
    assert asyncio.get_running_loop().time() - begun >= 2
    assert 2 <= link.requests(READ) <= 5, "after 0.1, 0.2, 0.4 and 0.8 s of silence"
    link.answers.set()
    assert len((await read(bus)).messages) == MESSAGES


async def test_an_answer_that_stops_is_asked_for_again_and_its_rest_does_not_mix_with_the_next(
    bus: NatsBus, link: SlowLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, silence=5)
    link.piece, link.pause, link.carried = 700, 0.1, 0
    reading = asyncio.create_task(read(bus))
    await until(lambda: link.carried > 1400)
    link.answers.clear()
    await until(lambda: link.requests(READ) == 2)
    link.pause = 0.0
    link.answers.set()
    page = await reading
    assert [message.subject for message in page.messages] == [f"flow.refund.f.{number}" for number in range(MESSAGES)]


async def test_a_stream_that_no_server_has_is_asked_for_ever_more_rarely(bus: NatsBus, link: SlowLink) -> None:
    with pytest.raises(BrokerUnavailable, match="within 2 s: no server answers for the stream"):
        await bus.direct_get("NOWHERE", multi_last=[">"], timeout=timedelta(seconds=2))
    assert 2 <= link.requests(READ) <= 7, "after 0.1, 0.2, 0.4 s, and then every 0.5 s"


async def test_a_leader_that_is_not_elected_yet_is_asked_ever_more_rarely(bus: NatsBus, link: SlowLink) -> None:
    with pytest.raises(BrokerUnavailable, match=r"gave up after 3 s: JetStream is not enabled, or no leader"):
        await bus.request_json("nowhere.at.all", timeout=timedelta(seconds=3))
    assert 3 <= link.requests(b"nowhere.at.all") <= 6, "after 0.1, 0.2, 0.4, 0.8 and 1 s"


async def test_of_a_flood_of_reads_a_limited_number_is_open_at_once_and_all_are_answered(
    nats_server: NatsServer, bus: NatsBus, link: SlowLink
) -> None:
    link.answers.clear()
    reading = [asyncio.create_task(read(bus)) for _ in range(10 * AT_ONCE)]
    await until(lambda: link.requests(READ) == AT_ONCE)
    # Whoever gives up makes room for the next, whether or not it was its turn.
    for task in (*reading[: AT_ONCE // 2], *reading[-AT_ONCE:]):
        task.cancel()
    await until(lambda: link.requests(READ) == AT_ONCE + AT_ONCE // 2)
    link.answers.set()
    pages = await asyncio.wait_for(asyncio.gather(*reading[AT_ONCE // 2 : -AT_ONCE]), 60)
    assert {len(page.messages) for page in pages} == {MESSAGES}


async def test_reads_that_wait_when_the_bus_closes_are_told_so(bus: NatsBus, link: SlowLink) -> None:
    link.answers.clear()
    reading = [asyncio.create_task(read(bus)) for _ in range(2 * AT_ONCE)]
    await until(lambda: link.requests(READ) == AT_ONCE)
    await bus.close()
    ended = await asyncio.wait_for(asyncio.gather(*reading, return_exceptions=True), 20)
    assert {type(each) for each in ended} == {BrokerUnavailable}
    with pytest.raises(BrokerUnavailable, match="closed"):
        await read(bus)


async def test_a_read_goes_on_after_a_reconnect(nats_server: NatsServer, bus: NatsBus, link: SlowLink) -> None:
    nats_server.pause()
    reading = asyncio.create_task(read(bus))
    await until(lambda: link.requests(READ) == 1)
    nats_server.kill()
    nats_server.start()
    assert len((await reading).messages) == MESSAGES
