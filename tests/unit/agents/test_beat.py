"""What a worker says of itself, until it stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from handrail.agents.beat import Beat
from handrail.agents.in_flight import InFlight
from handrail.agents.overseer import Overseer
from handrail.agents.threads import Threads
from handrail.mesh.streams import WORKER
from handrail.mesh.streams.streams import WORKER_MESSAGE_BYTES
from handrail.testing import World
from handrail.testing.hosting import HostedAgent
from handrail.v1.worker_pb2 import WorkerState
from tests.support.agents import Chain, template
from tests.support.waiting import until


class Stuck(Overseer):
    """One with a hundred handlers that hang, each of which has a long name."""

    @property
    def stuck(self) -> list[str]:
        return ["\U0001f980" * 1_000] * 100


async def test_what_a_worker_says_is_never_too_large_for_those_who_read_it() -> None:
    async with World(templates=[template()]) as world:
        hosted = HostedAgent(Chain().ledger, world.bus, Threads(1))
        await hosted.learn([template()])
        overseer = Stuck.__new__(Stuck)
        desk = InFlight(hosted.engine, timedelta(seconds=30))
        beat = Beat(hosted.bus, catalog=hosted.catalog, bindings=hosted.bindings, overseer=overseer, desk=desk)
        state = beat._state()
        assert state.ByteSize() < WORKER_MESSAGE_BYTES
        assert [set(each) for each in state.stuck] == [{"\U0001f980"}] * 100
        assert [each.flow_type for each in state.versions] == ["refund"]


async def test_a_worker_says_what_it_fits_and_stops_even_where_it_was_just_told_to_speak() -> None:
    ledger = Chain().ledger
    async with World(templates=[template()]) as world:
        hosted = HostedAgent(ledger, world.bus, Threads(1))
        await hosted.learn([template()])
        desk = InFlight(hosted.engine, timedelta(seconds=30))
        beat = Beat(
            hosted.bus, catalog=hosted.catalog, bindings=hosted.bindings, overseer=hosted.engine.overseer, desk=desk
        )
        speaking = asyncio.ensure_future(beat.run())
        await until(lambda: world.bus.messages[WORKER])
        [said] = world.bus.messages[WORKER]
        [version] = WorkerState.FromString(said.body).versions
        assert (version.flow_type, version.version, version.problem) == ("refund", 1, "")
        beat.tell()
        speaking.cancel()
        await asyncio.wait({speaking}, timeout=5)
        assert speaking.cancelled()
