"""Two persons, with agents at work: nothing is undone until the second one confirms, and then it is undone once."""

from __future__ import annotations

import pytest

from handrail.mesh.errors import HandrailError
from handrail.testing import World
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.agents import CHAIN, Chain, received, template

GUARDED = CHAIN + "require_two: [COMPENSATE]\n"
OTHER = ("version: 1", "version: 2")


async def test_p6_money_comes_back_when_a_second_person_confirms() -> None:
    chain = Chain()
    async with World(templates=[template(GUARDED)], agents=chain.agents) as world:
        flow = await world.start("refund", received(), by="detection")
        await world.compensate(flow, by="ola", reason="a mistake")
        assert (flow.status, chain.book.balance) == ("COMPLETED", 250)
        with pytest.raises(HandrailError) as refused:
            await world.confirm(flow, by="OLA")
        assert refused.value.reason == ErrorReason.ERROR_REASON_SAME_PERSON
        await world.confirm(flow, by="kim")
        assert (flow.status, chain.book.balance) == ("COMPENSATED", 0)
        assert not flow.acts


async def test_p6_whoever_breaks_the_glass_moves_a_flow_alone() -> None:
    async with World(templates=[template(GUARDED)], agents=Chain().agents) as world:
        world.stop_agent("ledger")
        flow = await world.start("refund", received(), by="detection")
        await world.put(template(CHAIN, OTHER))
        await world.migrate(flow, 2, by="ola", reason="as agreed")
        assert flow.flow.template.version == 1
        await world.confirm(flow, by="ola", break_glass="nobody else is awake")
        assert flow.flow.template.version == 2
