"""Lists read from the streams of a real server."""

import asyncio
from typing import Any

import pytest

from handrail.coordinator.lists.flows import Asked, Listing, Scanner, readable
from handrail.mesh.bus import Bus
from handrail.mesh.flow import Flow, ProposalState
from handrail.mesh.fold import status
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.stream_walk import newest_first, oldest_first
from handrail.mesh.wire.envelope import Unreadable
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import ApprovalCause, ApprovalGiven, ApprovalRequested, FlowStatus, GateRequest
from tests.support import flows
from tests.support.mesh import publish


@pytest.fixture
def scanner(bus: Bus, store: FlowStore) -> Scanner:
    return Scanner(bus, store)


def flow_id(number: int) -> str:
    return f"{number:032x}"


async def put(catalog: Catalog, *names: str, gated: bool = False) -> None:
    for name in names:
        await catalog.put(flows.stored(flows.template(name, gated=gated)))


def ids_of(listing: Listing[Flow | Unreadable]) -> list[int]:
    return [int(row.item.flow_id, 16) for row in readable(listing).rows]


async def test_flows_are_listed_newest_first_page_by_page(bus: Bus, catalog: Catalog, scanner: Scanner) -> None:
    await put(catalog, "refund")
    for number in range(1, 26):
        await publish(bus, flows.start(flow_id(number)))
    await publish(bus, *(flows.enriched(flow_id(number)) for number in range(1, 26)))
    seen: list[int] = []
    cursor = 0
    while True:
        page = await scanner.flows(size=10, cursor=cursor)
        seen += ids_of(page)
        # What is stored in between does not upset the pages that follow.
        await publish(bus, flows.start(flow_id(100 + len(seen))))
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == list(range(25, 0, -1))


async def test_flows_are_listed_by_type_and_status(bus: Bus, catalog: Catalog, scanner: Scanner) -> None:
    await put(catalog, "refund", "audit")
    for number in range(1, 7):
        flow_type = "refund" if number % 2 else "audit"
        await publish(bus, flows.start(flow_id(number), flow_type=flow_type))
    for number in (2, 3):
        flow_type = "refund" if number % 2 else "audit"
        await publish(
            bus,
            flows.enriched(flow_id(number), flow_type=flow_type),
            flows.notified(flow_id(number), flow_type=flow_type),
        )
    assert ids_of(await scanner.flows(size=50)) == [6, 5, 4, 3, 2, 1]
    assert ids_of(await scanner.flows(size=50, flow_type="audit")) == [6, 4, 2]
    completed = await scanner.flows(size=50, status=FlowStatus.FLOW_STATUS_COMPLETED)
    assert ids_of(completed) == [3, 2]
    assert {status(row.item) for row in readable(completed).rows} == {FlowStatus.FLOW_STATUS_COMPLETED}
    running = await scanner.flows(size=50, flow_type="refund", status=FlowStatus.FLOW_STATUS_RUNNING)
    assert ids_of(running) == [5, 1]
    assert (await scanner.flows(size=50, flow_type="nothing")).rows == ()


async def test_a_flow_that_can_not_be_folded_is_shown_as_such_and_hides_no_other(
    bus: Bus, catalog: Catalog, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(catalog, "refund")
    entry = flows.start(flow_id(1))
    await publish(bus, entry)
    await bus.publish(flows.start(flow_id(2)).address.subject, b"\xff")
    await bus.publish(f"flow.refund.not-an-id.event.detection.x.{flows.RECEIVED}", b"")
    await publish(bus, flows.start(flow_id(3)))
    assert ids_of(await scanner.flows(size=50)) == [3, 1]

    load = FlowStore.load

    async def broken(store: FlowStore, flow_type: str, of: str, **options: Any) -> Flow:
        if of == flow_id(3):
            raise OverflowError("a bug")
        return await load(store, flow_type, of, **options)

    monkeypatch.setattr(FlowStore, "load", broken)
    rows = (await scanner.flows(size=50)).rows
    bad = [row.item for row in rows if isinstance(row.item, Unreadable)]
    assert [(int(each.flow_id, 16), each.flow_type, each.proposal_id) for each in bad if "unexpected" in each.why] == [
        (3, "refund", "")
    ]
    assert 1 in ids_of(await scanner.flows(size=50))


async def test_a_walk_back_over_many_messages_misses_none(bus: Bus) -> None:
    rare = {37, 1200, 1201, 2900, 5999}
    subjects = [f"flow.{'rare' if number in rare else 'common'}.{number}" for number in range(6000)]
    for start in range(0, len(subjects), 1000):
        await asyncio.gather(*(bus.publish(subject, b"") for subject in subjects[start : start + 1000]))
    walked = [message.subject async for message in newest_first(bus, FLOW, ["flow.rare.*"])]
    assert walked == [f"flow.rare.{number}" for number in sorted(rare, reverse=True)]
    both = [message.sequence async for message in newest_first(bus, FLOW, ["flow.rare.*", "flow.common.*"])]
    assert both == list(range(6000, 0, -1))
    ahead = [message.sequence async for message in oldest_first(bus, FLOW, "flow.common.*", after=3000)]
    assert len(ahead) == len(set(ahead)) == 3000 - 1
    assert [message async for message in newest_first(bus, FLOW, ["flow.none.*"])] == []
    assert [message async for message in oldest_first(bus, FLOW, "flow.none.*")] == []


async def ask(bus: Bus, store: FlowStore, number: int, *, flow_type: str = "refund") -> Flow:
    """A proposal in a flow of its own, and the request for its approval."""
    proposal = flows.enriched(flow_id(number), flow_type=flow_type, kind=Kind.PROPOSAL)
    last = await publish(bus, flows.start(flow_id(number), flow_type=flow_type), proposal)
    flow = await store.load(flow_type, flow_id(number), at_least=last)
    return await asked_again(bus, store, flow)


async def asked_again(bus: Bus, store: FlowStore, flow: Flow) -> Flow:
    (proposal,) = flow.proposals.values()
    request = ApprovalRequested(
        proposal_id=proposal.recorded.event_id,
        digest=proposal.digest,
        gates=[GateRequest(gate="look", roles=["finance"], quorum=1)],
    )
    entry = flows.decision(
        request,
        flow_id=flow.flow_id,
        flow_type=flow.flow_type,
        about=proposal.recorded.event_id,
        based_on=flow.last_sequence,
    )
    return await store.load(flow.flow_type, flow.flow_id, at_least=(await store.append(flow, entry)).sequence)


async def approve(store: FlowStore, flow: Flow) -> None:
    (proposal,) = flow.proposals.values()
    vote = ApprovalGiven(
        proposal_id=proposal.recorded.event_id,
        digest=proposal.digest,
        voter="fay",
        roles=["finance"],
        cause=ApprovalCause.APPROVAL_CAUSE_VOTE,
    )
    await store.append(
        flow,
        flows.decision(vote, flow_id=flow.flow_id, flow_type=flow.flow_type, about="fay", based_on=flow.last_sequence),
    )


async def test_approvals_that_wait_are_listed_oldest_first(
    bus: Bus, catalog: Catalog, store: FlowStore, scanner: Scanner
) -> None:
    await put(catalog, "refund", "audit", gated=True)
    asked = [await ask(bus, store, number) for number in (1, 2, 3, 4)]
    await ask(bus, store, 5, flow_type="audit")
    await approve(store, asked[1])

    def numbers(listing: Listing[Asked | Unreadable]) -> list[int]:
        return [int(row.item.flow.flow_id, 16) for row in listing.rows if isinstance(row.item, Asked)]

    first = await scanner.approvals(size=2)
    assert numbers(first) == [1, 3]
    assert {row.item.proposal.state for row in first.rows if isinstance(row.item, Asked)} == {ProposalState.PENDING}
    second = await scanner.approvals(size=2, cursor=first.next_cursor)
    assert numbers(second) == [4, 5]
    assert numbers(await scanner.approvals(size=9, include_closed=True)) == [1, 2, 3, 4, 5]
    assert numbers(await scanner.approvals(size=9, flow_type="audit")) == [5]


async def test_a_proposal_that_was_asked_twice_is_listed_once(
    bus: Bus, catalog: Catalog, store: FlowStore, scanner: Scanner
) -> None:
    await put(catalog, "refund", gated=True)
    await asked_again(bus, store, await ask(bus, store, 1))
    assert len((await scanner.approvals(size=9)).rows) == 1
