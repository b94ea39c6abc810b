"""A flow that moved to another version, with the SDK's agents: they follow it, whether they heard of it or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handrail.mesh.errors import HandrailError
from handrail.mesh.fold import migration_of
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World
from handrail.v1.decision_pb2 import FlowMigrated
from handrail.v1.error_reason_pb2 import ErrorReason
from payments.v1.payments_pb2 import CustomerNotified, RefundPaid
from tests.support.agents import CHAIN, Chain, received, template

OTHER = ("version: 1", "version: 2")


def versions(flow: FlowView) -> list[int]:
    return [recorded.event.template_version for recorded in flow.history]


async def waiting_for_the_ledger(world: World) -> FlowView:
    world.stop_agent("ledger")
    flow = await world.start("refund", received(), by="detection")
    await world.put(template(CHAIN, OTHER))
    return flow


async def test_agents_that_heard_of_the_move_go_on_in_the_new_version() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.migrate(flow, 2, by="ola", reason="as agreed")
        await world.start_agent("ledger")
        assert flow.status == "COMPLETED"
        assert versions(flow) == [1, 1, 1, 2, 2]
        [moved] = flow.recorded(FlowMigrated)
        assert (moved.from_version, moved.to_version, moved.by, moved.reason) == (1, 2, "ola", "as agreed")
    assert chain.book.balance == 250


async def test_p8_an_agent_that_has_not_heard_of_the_move_is_not_lost() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.migrate(flow, 2)
        for hosted in world._agents.values():
            hosted.hints.flow_ids.clear()
        await world.start_agent("ledger")
        assert flow.status == "COMPLETED"
        assert not flow.flow.void
        assert [len(flow.facts(message)) for message in (RefundPaid, CustomerNotified)] == [1, 1]
    assert chain.book.balance == 250


async def test_a_flow_stays_where_it_is_until_it_can_move() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.put(template(CHAIN, ("version: 1", "version: 3"), ("agent: ledger", "agent: treasury")))
        with pytest.raises(HandrailError, match="step pay is in progress, and belongs to agent treasury") as refused:
            await world.migrate(flow, 3)
        assert refused.value.reason == ErrorReason.ERROR_REASON_WRONG_STATUS
        with pytest.raises(HandrailError, match="no template refund version 4 is stored"):
            await world.migrate(flow, 4)
        assert not flow.recorded(FlowMigrated)
        await world.start_agent("ledger")
        assert (flow.status, versions(flow)) == ("COMPLETED", [1, 1, 1, 1])


async def test_moving_a_flow_to_where_it_is_records_nothing() -> None:
    async with World(templates=[template()], agents=Chain().agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.migrate(flow, 2)
        await world.migrate(flow, 2)
        assert len(flow.recorded(FlowMigrated)) == 1


async def test_a_repeated_request_does_not_move_a_flow_back() -> None:
    async with World(templates=[template()], agents=Chain().agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.migrate(flow, 2, request_id="first")
        await world.migrate(flow, 1, request_id="second")
        await world.migrate(flow, 2, request_id="first")
        assert (len(flow.recorded(FlowMigrated)), flow.flow.template.version) == (2, 1)


async def test_p4_only_the_coordinators_word_moves_a_flow() -> None:
    async with World(templates=[template()], agents=Chain().agents) as world:
        flow = await waiting_for_the_ledger(world)
        await world.migrate(flow, 2)
        [moved] = [recorded for recorded in flow.history if migration_of(recorded) is not None]
        for address in (moved.address._replace(agent="ledger"), moved.address._replace(kind=Kind.EVENT)):
            assert migration_of(replace(moved, address=address)) is None
