"""What a join costs its agent: reads of the flow, and messages that it reads in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest

from handrail.mesh.bus import Page
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.flow import MESSAGE_LIMIT
from handrail.testing import World
from handrail.testing.hosting import HostedAgent
from tests.support.agents import received, template
from tests.unit.agents.test_fan_out_in_flows import FAN_OUT, Fan

OTHERS = 3
"""The messages of such a flow beside those of its parts: the first event, and those of the join."""


@dataclass
class Reads:
    """How often an agent read a flow, and the number of messages in all these reads."""

    count: int = 0
    messages: int = 0

    def of(self, hosted: HostedAgent) -> None:
        """Counts the reads of this agent from now on."""
        direct_get = hosted.bus.direct_get

        async def counted(
            stream: str,
            *,
            multi_last: Sequence[str],
            from_seq: int = 0,
            up_to_seq: int | None = None,
            timeout: timedelta = READ_TIMEOUT,
        ) -> Page:
            page = await direct_get(
                stream, multi_last=multi_last, from_seq=from_seq, up_to_seq=up_to_seq, timeout=timeout
            )
            if multi_last[0].startswith("flow."):
                self.count += 1
                self.messages += len(page.messages)
            return page

        hosted.bus.direct_get = counted


async def reads_of_a_join(parts: int, seed: int | None) -> Reads:
    """What the agent of a join over so many parts reads, in a flow without a coordinator."""
    fan, reads = Fan(), Reads()
    async with World(templates=[template(FAN_OUT)], agents=fan.agents, seed=seed) as world:
        reads.of(world._agents["notification"])
        world.stop_coordinator()
        event = received()
        event.amount.units = parts
        flow = await world.start("refund", event, by="detection")
        assert flow.status == "COMPLETED"
    [(_, joined)] = fan.joined
    assert len(joined) == parts
    return reads


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("parts", [100, 400])
async def test_a_join_reads_each_message_of_its_flow_a_few_times_however_many_inputs_it_has(
    parts: int, seed: int | None
) -> None:
    assert 2 * parts + OTHERS < MESSAGE_LIMIT
    reads = await reads_of_a_join(parts, seed)
    assert 1 <= reads.count <= parts + OTHERS
    assert reads.messages <= 2 * (2 * parts + OTHERS)


async def test_inputs_that_a_read_covers_are_judged_without_another() -> None:
    assert (await reads_of_a_join(100, None)).count <= OTHERS
