"""P4: whoever keeps a flow has what a fold of the whole stream gives, whatever agents said before the flow began.

An early message may claim any version. It must not pin the flow to that version for those who kept the flow since.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.agents.recent_flows import RecentFlows
from handrail.coordinator.decide import decide
from handrail.mesh.bus import Page
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.flow import Flow, ProposalState
from handrail.mesh.fold import status
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.subjects import Kind, flow_filter
from handrail.v1.decision_pb2 import FlowStatus
from handrail.visibility.follow.folding import Folding
from handrail.visibility.follow.grouping import begins
from handrail.visibility.follow.open_flows import OpenFlows
from handrail.visibility.index.rows import rows_of
from tests.support.early import Stray, claiming, outcome, strays
from tests.support.flows import FLOW_ID, enriched, start, stored, template
from tests.support.simulation import BEGINNING
from tests.support.stepped import Durables, SteppedBus, SteppedReplica

KEY = ("refund", FLOW_ID)
GATED, PLAIN = 1, 2
"""The versions of the flow type: the first has a gate on the answer of the first step."""


def story(version: int) -> list[Stray]:
    """The flow itself, up to what its gate lets wait."""
    answer = enriched(kind=Kind.PROPOSAL if version == GATED else Kind.EVENT)
    entries = [claiming(each, version) for each in (start(), answer)]
    return [Stray(each.address.subject, each.body) for each in entries]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    catalog = Catalog(SteppedBus(BEGINNING))
    for each in (template(version=GATED, gated=True), template(version=PLAIN)):
        asyncio.run(catalog.put(stored(each)))
    return catalog


async def say(bus: SteppedBus, stray: Stray, *, says_what_it_follows: bool = False) -> int:
    """Stores it a moment later than the last one; returns the last sequence of the stream.

    A message that says what it follows is taken for the next one of its flow, without a read.
    """
    bus.now += timedelta(seconds=0.01)
    last = bus.messages[FLOW][-1].sequence if bus.messages[FLOW] else 0
    try:
        if says_what_it_follows:
            return await bus.publish(
                stray.subject, stray.body, expected_sequence=last, expected_filter=flow_filter(*KEY)
            )
        return await bus.publish(stray.subject, stray.body)
    except AlreadyStored:
        return bus.messages[FLOW][-1].sequence


async def whole(store: FlowStore, at_least: int = 0, *, up_to: int | None = None) -> Flow | None:
    """The flow, read whole; None if it can't be folded, because it is of a version that is not stored."""
    try:
        return await store.load(*KEY, at_least=at_least, up_to=up_to)
    except HandrailError:
        return None


given_a_story = given(
    before=strays(most=4),
    between=strays(most=2, first_run=10),
    after=strays(most=2, first_run=20),
    version=st.sampled_from([GATED, PLAIN]),
)


def told(before: list[Stray], between: list[Stray], after: list[Stray], version: int) -> list[Stray]:
    first, answer = story(version)
    return [*before, first, *between, answer, *after]


@given_a_story
@settings(max_examples=40, deadline=None)
async def test_p4_a_flow_that_is_read_on_is_the_fold_of_the_stream(
    catalog: Catalog, before: list[Stray], between: list[Stray], after: list[Stray], version: int
) -> None:
    bus = SteppedBus(BEGINNING)
    store = FlowStore(bus, catalog)
    recent = RecentFlows(store)
    kept: list[Flow] = []
    for stray in told(before, between, after, version):
        last = await say(bus, stray)
        wanted = await whole(store, last)
        if wanted is None:
            continue
        for each in kept:  # from wherever it was kept
            assert await store.catch_up(each, at_least=last) == wanted
        assert await recent.load(*KEY, at_least=last, suffices=lambda flow: True) == wanted
        kept.append(wanted)
    assert kept[-1].template.version == version
    assert kept[-1].proposals or kept[-1].facts


@given_a_story
@settings(max_examples=40, deadline=None)
async def test_p4_a_flow_that_is_kept_for_the_index_is_the_fold_of_the_stream(
    catalog: Catalog, before: list[Stray], between: list[Stray], after: list[Stray], version: int
) -> None:
    bus = SteppedBus(BEGINNING)
    store, flows = FlowStore(bus, catalog), OpenFlows()
    folding = Folding(store.known_template, flows)
    is_known = False
    for stray in told(before, between, after, version):
        await say(bus, stray)
        message = bus.messages[FLOW][-1]
        wanted = await whole(store)
        if not folding.take(KEY, [message], is_new=not is_known and begins(message)) and wanted is not None:
            flows.keep(KEY, wanted, rows_of(wanted, await store.read(*KEY)))
        is_known = True
        kept = flows.get(KEY)
        assert kept is None or kept.flow == wanted
        assert kept is not None or wanted is None or wanted.first is None
    kept = flows.get(KEY)
    assert kept is not None
    assert kept.flow.template.version == version


@given_a_story
@settings(max_examples=40, deadline=None)
async def test_p7_a_flow_in_hand_is_the_fold_of_the_stream_and_waits_for_its_people(
    catalog: Catalog, before: list[Stray], between: list[Stray], after: list[Stray], version: int
) -> None:
    for replicated, says_what_it_follows in product((False, True), repeat=2):
        bus = SteppedBus(BEGINNING, replicated=replicated)
        replica, durables = SteppedReplica(bus, catalog), Durables(bus)
        for stray in told(before, between, after, version):
            await say(bus, stray, says_what_it_follows=says_what_it_follows)
            await hand_out(replica, durables)
            hand = replica.reconciler.flows.get(KEY)
            if hand is None:
                continue
            assert hand.last_read == await whole(replica.store, up_to=hand.last_read.last_sequence)
            assert hand.flow.template == hand.last_read.template
        for _ in range(5):
            durables.hand_out_again()
            await hand_out(replica, durables)
        await is_asked(replica.store, version)


async def hand_out(replica: SteppedReplica, durables: Durables) -> None:
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    await replica.track(durables.take(TRACK))


async def is_asked(store: FlowStore, version: int) -> None:
    """Nothing is left to decide: people are asked, if the flow's version has the gate and nothing else holds it."""
    flow = await store.load(*KEY)
    assert flow.template.version == version
    assert flow.last_time is not None
    assert decide(flow, flow.last_time) is None
    states = [each.state for each in flow.proposals.values()]
    assert flow.is_halted or states == [ProposalState.PENDING] * (version == GATED)


@pytest.mark.parametrize("says_what_it_follows", [False, True])
async def test_p7_an_early_message_of_another_version_keeps_no_flow_from_asking_its_people(
    catalog: Catalog, says_what_it_follows: bool
) -> None:
    bus = SteppedBus(BEGINNING)
    replica, durables = SteppedReplica(bus, catalog), Durables(bus)
    early = outcome(PLAIN, run=1)
    for stray in (Stray(early.address.subject, early.body), *story(GATED)):
        await say(bus, stray, says_what_it_follows=says_what_it_follows)
        await hand_out(replica, durables)
    await is_asked(replica.store, GATED)
    assert status(await replica.store.load(*KEY)) is FlowStatus.FLOW_STATUS_WAITING_APPROVAL


async def test_what_comes_to_a_flow_that_does_not_begin_costs_no_read_of_the_whole_flow(catalog: Catalog) -> None:
    bus = CountingBus(BEGINNING)
    store = FlowStore(bus, catalog)
    kept: Flow | None = None
    for run in range(1, 60):
        early = outcome(PLAIN, run=run)
        last = await say(bus, Stray(early.address.subject, early.body))
        bus.read = 0
        kept = await store.load(*KEY) if kept is None else await store.catch_up(kept, at_least=last)
        assert kept.last_sequence == last
        assert bus.read <= 3
    assert kept == await whole(store)


class CountingBus(SteppedBus):
    """Counts the messages that were read."""

    read = 0

    async def direct_get(self, *arguments: Any, **named: Any) -> Page:
        page = await super().direct_get(*arguments, **named)
        self.read += len(page.messages)
        return page
