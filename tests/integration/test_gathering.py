"""Sorting a stream into whole flows within bounds, however the flows are interleaved."""

from __future__ import annotations

import pytest

from handrail.coordinator.lists.bulk_read import scan
from handrail.coordinator.replay.flow_assembly import Flow, Gathering
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from handrail.mesh.wire import ids
from tests.support import flows
from tests.support.nats_server import NatsServer
from tests.support.raw_client import raw_client
from tests.support.recorded_refunds import record

EVERY = "flow.refund.>"


async def gathered(bus: NatsBus, held: int, *, is_first_ever: bool, after: int = 0, size: int = 40) -> list[Flow]:
    """The flows that a gathering gives out, in pages of forty messages, or of `size`."""
    newest = await bus.last_on_leader(FLOW, EVERY)
    assert newest is not None
    gathering = Gathering(bus, "refund", newest=newest, held=held)
    whole: list[Flow] = []
    async with scan(bus, FLOW, EVERY, up_to=newest.sequence) as reading:
        async for page in reading.pages():
            for start in range(0, len(page), size):
                some = [stored for stored in page[start : start + size] if stored.sequence > after]
                if some:
                    await gathering.take(some, is_first_ever=is_first_ever)
                    whole += await gathering.overflow()
    return [*whole, *gathering.rest()]


@pytest.mark.parametrize("is_first_ever", [True, False])
async def test_each_flow_comes_once_and_whole_however_little_is_held(bus: NatsBus, *, is_first_ever: bool) -> None:
    stored = await record(bus, 400, seed=5)
    every = await gathered(bus, 1 << 30, is_first_ever=is_first_ever)
    few = await gathered(bus, 60_000, is_first_ever=is_first_ever)
    assert sum(map(len, every)) == stored
    assert len({flow[0].subject for flow in every}) == 400
    assert sorted(few) == sorted(every)


async def test_a_second_first_event_begins_no_flow_that_began_before(bus: NatsBus) -> None:
    first = flows.start()
    await bus.publish(first.address.subject, first.body)
    begun = await bus.last_on_leader(FLOW, EVERY)
    assert begun is not None
    stray = first.address._replace(agent="coordinator").subject
    assert stray.split(".")[5] == ids.start_id(flows.FLOW_ID)
    await bus.publish(stray, first.body)
    [seen_late] = await gathered(bus, 1 << 30, is_first_ever=False, after=begun.sequence)
    assert [stored.sequence for stored in seen_late] == [begun.sequence, begun.sequence + 1], "it is read whole"
    again = await gathered(bus, 0, is_first_ever=True, size=1)
    assert [len(flow) for flow in again] == [2], "what was given out is not begun again"


@pytest.mark.parametrize("is_first_ever", [True, False])
async def test_a_message_whose_subject_is_no_text_may_be_the_newest(
    bus: NatsBus, nats_server: NatsServer, *, is_first_ever: bool
) -> None:
    stored = await record(bus, 40, seed=5)
    async with raw_client(nats_server.url) as agent:
        for number in range(45):
            await agent.publish(b"flow.refund.\xff%d.event.enrichment.\xfe.x.v1.Noise" % number, b"")
    assert sum(map(len, await gathered(bus, 0, is_first_ever=is_first_ever))) == stored
