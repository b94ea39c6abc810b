"""The SDK with the real fold and decisions, in memory: answers that come after their flow ended and was purged."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, NonRetryable
from handrail.coordinator.decide import operator_requests, votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import is_final
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World
from handrail.v1.decision_pb2 import Choice
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    RefundPaid,
    RefundReversed,
    SmallRefundGranted,
)
from tests.support.agents import CHAIN, Chain, enriched, notified, paid, received, template
from tests.support.late_messages import never_said, said_again
from tests.support.purging import left, purge

ARCHIVED = ErrorReason.ERROR_REASON_FLOW_ARCHIVED
KEY = "cb-1"
LATE = timedelta(minutes=6)
IN_TIME = timedelta(minutes=4)
LONG = template(CHAIN.replace("timeout: 30s", "timeout: 36000s"))
TWO_TYPES = template(
    CHAIN.replace("timeout: 30s", "timeout: 36000s"),
    ("emits: [payments.v1.RefundPaid]", "emits: [payments.v1.RefundPaid, payments.v1.SmallRefundGranted]"),
)


async def began(world: World) -> FlowView:
    """Starts the refund of the key."""
    return await world.start("refund", received(), by="detection", key=KEY)


async def purged(world: World, flow_id: str) -> list[Recorded]:
    """Purges a flow, as retention does."""
    return await purge(world.bus, FlowStore(world.bus, world.coordinator.catalog), flow_id)


@dataclass
class Meanwhile:
    """Agents of LONG. While `of` works on its step, `passes` pass, and the flow ends without it and is purged."""

    of: str
    passes: timedelta
    purges: bool = True
    of_two_types: bool = False
    fails: bool = False
    beats: bool = False
    calls: list[str] = field(default_factory=list)

    async def happen(self, world: World, ctx: Context) -> None:
        """Lets all that happen if it is this agent's turn."""
        self.calls.append(ctx.step)
        if ctx.step != self.of:
            return
        world.bus.now += self.passes
        if self.purges:
            await purged(world, ctx.flow_id)
        if self.beats:
            await ctx.heartbeat("half")
            self.calls.append("after the heartbeat")
        if self.fails:
            raise NonRetryable("no such account")

    def agents(self, worlds: list[World]) -> list[Agent]:
        """The agents; `worlds` gets the one that they are in."""
        enrichment, ledger, notification = Agent("enrichment"), Agent("ledger"), Agent("notification")

        @enrichment.on(ChargebackReceived)
        async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
            await self.happen(worlds[0], ctx)
            return enriched()

        async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
            await self.happen(worlds[0], ctx)
            return paid()

        async def pay_or_not(event: ChargebackEnriched, ctx: Context) -> RefundPaid | SmallRefundGranted:
            return await pay(event, ctx)

        ledger.on(ChargebackEnriched)(pay_or_not if self.of_two_types else pay)

        async def take_back(event: RefundPaid | SmallRefundGranted) -> RefundReversed:
            raise AssertionError("nothing is there to be undone")

        ledger.undoes(*((RefundPaid, SmallRefundGranted) if self.of_two_types else (RefundPaid,)))(take_back)

        @notification.on(RefundPaid)
        async def notify(event: RefundPaid, ctx: Context) -> CustomerNotified:
            await self.happen(worlds[0], ctx)
            return notified()

        return [enrichment, ledger, notification]

    @asynccontextmanager
    async def lived(self) -> AsyncIterator[World]:
        """A World in which a flow began, and days went by."""
        worlds: list[World] = []
        async with World(templates=[TWO_TYPES if self.of_two_types else LONG], agents=self.agents(worlds)) as world:
            worlds.append(world)
            await began(world)
            await world.advance(timedelta(days=2))
            yield world


@pytest.mark.parametrize("of_two_types", [False, True], ids=["one type", "two types"])
@pytest.mark.parametrize("fails", [False, True], ids=["an answer", "a failure"])
async def test_p3_what_is_said_of_an_effect_after_the_purge_is_not_stored_but_put_before_a_person(
    of_two_types: bool, fails: bool
) -> None:
    meanwhile = Meanwhile("pay", LATE, of_two_types=of_two_types, fails=fails)
    async with meanwhile.lived() as world:
        assert world.bus.messages[FLOW] == []
        [kept] = world.quarantined
    assert (kept.reason, kept.reporter, kept.stream_sequence) == (ARCHIVED, "ledger", 0)
    assert "step pay may have had an effect" in kept.detail
    assert (StepFailed.DESCRIPTOR.full_name in kept.subject) is fails
    assert meanwhile.calls == ["enrich", "pay"]


async def test_an_answer_without_an_effect_that_comes_after_the_purge_is_dropped() -> None:
    meanwhile = Meanwhile("enrich", LATE)
    async with meanwhile.lived() as world:
        assert world.bus.messages[FLOW] == []
        # The coordinator was handed the first event before it was purged.
        assert {each.reporter for each in world.quarantined} == {"coordinator"}
    assert meanwhile.calls == ["enrich"]


async def test_p3_a_heartbeat_after_the_purge_ends_the_work() -> None:
    meanwhile = Meanwhile("pay", LATE, beats=True)
    async with meanwhile.lived() as world:
        assert world.bus.messages[FLOW] == []
        assert [each.reason for each in world.quarantined] == [ARCHIVED]
    assert meanwhile.calls == ["enrich", "pay"]


@pytest.mark.parametrize("passes, guarded", [(IN_TIME, False), (LATE, True)], ids=["in time", "late"])
async def test_p3_only_a_late_answer_asks_the_broker_whether_its_trigger_is_there(
    passes: timedelta, guarded: bool
) -> None:
    async with Meanwhile("pay", passes, purges=False).lived() as world:
        stored = {message.subject.rpartition(".")[2]: message for message in world.bus.messages[FLOW]}
    trigger, answer = stored["ChargebackEnriched"], stored["RefundPaid"]
    expected = {
        "Nats-Expected-Last-Subject-Sequence": str(trigger.sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": trigger.subject,
    }
    assert answer.headers == (expected if guarded else {})
    assert Event.FromString(answer.body).late is guarded


@pytest.mark.parametrize("waited", [LATE, timedelta(hours=3)], ids=str)
async def test_p3_a_delivery_of_a_purged_flow_is_acknowledged_and_nothing_is_done(waited: timedelta) -> None:
    chain = Chain()
    async with World(templates=[LONG], agents=chain.agents) as world:
        world.stop_coordinator()
        world.stop_agent("ledger")
        flow = await began(world)
        await world.advance(waited)
        await purged(world, flow.flow_id)
        await world.start_agent("ledger")
        await world.advance(timedelta(days=2))
        assert world.bus.messages[FLOW] == []
        assert world.quarantined == []
    assert chain.book.calls == []


# What may come after the purge, at each point of each life.

GATED = template(
    CHAIN
    + """
gates:
  - name: look
    on: payments.v1.RefundPaid
    approvers: {roles: [finance], quorum: 1}
    expires_after: 600s
    on_reject: FAIL
"""
)


@dataclass
class Life:
    """How a flow comes to its end."""

    live: Callable[[World, FlowView], Awaitable[None]]
    gated: bool = False
    breaks: Sequence[str] = field(default_factory=tuple)


async def _completes(world: World, flow: FlowView) -> None:
    pass


async def _is_compensated(world: World, flow: FlowView) -> None:
    await world.compensate(flow)


async def _is_cancelled(world: World, flow: FlowView) -> None:
    await world.cancel(flow)


async def _is_approved(world: World, flow: FlowView) -> None:
    await world.approve(flow, voter="anna", roles=["finance"])


async def _is_refused(world: World, flow: FlowView) -> None:
    await world.reject(flow, voter="anna", roles=["finance"])


async def _fails(world: World, flow: FlowView) -> None:
    await world.advance(timedelta(hours=1))
    await world.resolve(flow, Choice.CHOICE_FAIL)


LIVES = {
    "completed": Life(_completes),
    "compensated": Life(_is_compensated),
    "cancelled": Life(_is_cancelled, breaks=["enrichment"]),
    "approved": Life(_is_approved, gated=True),
    "refused": Life(_is_refused, gated=True),
    "failed": Life(_fails, breaks=["ledger"]),
}


async def refusals(world: World, flow: Flow) -> set[str]:
    """The reasons with which everything that a person may ask of the flow is refused."""
    anna = Caller("anna", of_roles(["finance"]))
    proposals = [each.recorded.event_id for each in flow.proposals.values()] or ["0" * 32]
    asked: list[tuple[operator_requests.Judge, Caller]] = [
        (lambda flow, by: operator_requests.cancelling(flow, by, reason="late"), Caller("olga")),
        (lambda flow, by: operator_requests.compensation(flow, by, reason="late"), Caller("olga")),
        (lambda flow, by: operator_requests.retrying(flow, by, step="pay", reason="late"), Caller("olga")),
        (
            lambda flow, by: operator_requests.answer(flow, by, choice=Choice.CHOICE_RETRY, reason="late"),
            Caller("olga"),
        ),
        *(
            (
                lambda flow, by, one=one, yes=yes: votes.vote(flow, by, approval_id=one, digest="", approve=yes),
                anna,
            )
            for one in proposals
            for yes in (True, False)
        ),
    ]
    reasons = set()
    for judge, caller in asked:
        with pytest.raises(HandrailError) as refused:
            await world.coordinator.operator_actions.record("refund", flow.flow_id, judge, caller=caller)
        reasons.add(refused.value.reason_name)
    return reasons


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LIVES)
async def test_p3_whatever_comes_after_the_purge_is_in_quarantine_and_reopens_nothing(name: str, seed: int) -> None:
    life, chance, chain = LIVES[name], random.Random(seed), Chain()
    async with World(templates=[GATED if life.gated else template()], agents=chain.agents, seed=seed) as world:
        for agent in life.breaks:
            world.stop_agent(agent)
        flow = await began(world)
        await life.live(world, flow)
        await world.advance(timedelta(days=3))
        assert is_final(flow.flow), flow.story
        ended, timers = flow.flow, [f"due.refund.{flow.flow_id}.deadline-1", f"due.refund.{flow.flow_id}.step-1"]
        history = await purged(world, flow.flow_id)
        for agent in life.breaks:  # it is handed what it had been sent
            await world.start_agent(agent)
        before = (list(chain.book.calls), list(chain.outbox), chain.book.balance, len(world.quarantined))

        entries = [*said_again(history), *never_said(ended, history, world.now)]
        chance.shuffle(entries)
        for entry in entries:
            await world.publish(entry.address.subject, entry.body)
            await world.coordinator.due(chance.choice(timers))
            await world.settle()
        assert {each.address.kind for each in entries} >= {Kind.EVENT, Kind.FAILURE, Kind.PROGRESS}
        assert await refusals(world, ended) == {"FLOW_ARCHIVED"}
        again = await began(world)
        await world.advance(timedelta(days=3))

        assert again.flow_id == flow.flow_id
        assert (list(chain.book.calls), list(chain.outbox), chain.book.balance) == before[:3]
        stored = await left(world.bus, flow.flow_id)
        assert [each.address.subject for each in stored] == [each.address.subject for each in entries]
        assert world.bus.timers == {}
        kept = {each.subject: each.reason for each in world.quarantined[before[3] :]}
        assert kept == {each.address.subject: ARCHIVED for each in entries}
