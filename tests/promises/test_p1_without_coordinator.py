"""P1: the happy path never waits for the coordinator, and what does need one goes on when one is back."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from handrail.agents import Context
from handrail.mesh.fold import fold
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.envelope import Recorded, decode
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.promises.conftest import Build
from tests.promises.team import LARGE, Team, claim
from tests.support.agents import CHAIN, Chain, received, template
from tests.support.house import House
from tests.support.mesh import name_of_status
from tests.support.waiting import eventually

PATIENT = (CHAIN, ("timeout: 30s", "timeout: 3000s"), ("timeout: 60s", "timeout: 3000s"))
"""A step that waits for a quarter of its timeout says when it begins. Here none does, on a slow machine either."""


async def all_flows(house: House) -> dict[str, list[Recorded]]:
    """Every message of the FLOW stream, by flow."""
    flows: dict[str, list[Recorded]] = defaultdict(list)
    sequence = 1
    while True:
        page = await house.mesh.bus.read_forward(FLOW, "flow.>", from_sequence=sequence, limit=500)
        for message in page.messages:
            recorded = decode(message.subject, message.body, sequence=message.sequence, time=message.time)
            flows[recorded.address.flow_id].append(recorded)
            sequence = message.sequence + 1
        if not page.pending:
            return flows


async def test_p1_a_thousand_happy_flows_complete_while_no_coordinator_runs(build: Build) -> None:
    house, chain = await build(flow_type=template(*PATIENT)), Chain()
    async with house.working(chain.agents):
        await asyncio.gather(*(house.start(received(f"cb-{number}")) for number in range(1000)))
        await house.mesh.until_messages(4000)
        for agent in chain.agents:
            await house.mesh.until_settled(agent.name)
    flows = await all_flows(house)
    assert {len(history) for history in flows.values()} == {4}
    assert {name_of_status(fold(house.template, history)) for history in flows.values()} == {"COMPLETED"}
    assert sorted(chain.outbox) == sorted(flows)
    assert (len(flows), chain.book.balance) == (1000, 250_000)


async def test_p1_a_running_coordinator_adds_nothing_to_a_happy_flow(build: Build) -> None:
    house, chain = await build(flow_type=template(*PATIENT)), Chain()
    async with house.coordinator() as people, house.working(chain.agents):
        started = await asyncio.gather(*(people.start(received(f"cb-{number}")) for number in range(200)))
        await house.mesh.until_messages(800)
        await house.until_quiet()
        flow = await people.flow(started[0].flow_id)
        assert not flow.expectations
    flows = await all_flows(house)
    assert {len(history) for history in flows.values()} == {4}
    assert {name_of_status(fold(house.template, history)) for history in flows.values()} == {"COMPLETED"}


class Troubled(Team):
    """Enrichment fails the first attempt for one chargeback, and loses that of another."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[tuple[str, int]] = []
        self.found_again = asyncio.Event()

    async def enrich(self, event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        self.attempts.append((event.chargeback_id, ctx.attempt))
        if ctx.attempt == 1 and event.chargeback_id == "failing":
            raise RuntimeError("the register is being painted")
        if ctx.attempt == 1 and event.chargeback_id == "lost":
            await self.found_again.wait()
        return await super().enrich(event, ctx)


async def test_p1_timeouts_retries_and_approvals_resume_when_a_coordinator_is_back(build: Build) -> None:
    house = await build(
        (
            "timeout: 600s\n    retry: {max_attempts: 2, initial_backoff: 0.2s}\n    on_failure: ESCALATE",
            "timeout: 1s\n    retry: {max_attempts: 2, initial_backoff: 0.5s}\n    on_failure: ESCALATE",
        )
    )
    team = Troubled()
    async with house.working(team.agents):
        async with house.coordinator() as people:
            asking = await house.start(claim("asking", units=LARGE))
            approval = await people.approval(asking)
            lost, failing = await house.start(claim("lost")), await house.start(claim("failing"))
            # The timer of the lost attempt and that of the retry are armed, and now nobody is there to hear them.
            await eventually(lambda: house.mesh.messages("TIMER"), lambda armed: armed >= 3)
        late = await house.start(claim("late", units=LARGE))
        happy = await house.start(claim("happy"))
        await house.mesh.until_status(happy, "COMPLETED")
        await eventually(lambda: house.mesh.unsettled("due"), lambda fired: fired >= 2)
        assert {name_of_status(await house.mesh.flow(flow)) for flow in (lost, failing, late)} == {"RUNNING"}
        async with house.coordinator() as people:
            await people.until_status(lost, "COMPLETED")
            await people.until_status(failing, "COMPLETED")
            assert (await people.approval(late)).flow_id == late
            for name in ("anna", "ben"):
                await people.approve(approval, by=name)
            await people.until_status(asking, "COMPLETED")
            team.found_again.set()
    assert ("lost", 2) in team.attempts
    assert ("failing", 2) in team.attempts
