"""Divergences found in the stream of a real server."""

from __future__ import annotations

import pytest

from handrail.coordinator.lists import divergences
from handrail.coordinator.lists.divergences import DivergenceScanner, Seen
from handrail.coordinator.lists.flows import Listing
from handrail.mesh.bus import Bus
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.v1.failure_pb2 import DivergenceKind
from tests.support import flows
from tests.support.mesh import publish


@pytest.fixture
async def scanner(bus: Bus, catalog: Catalog, store: FlowStore) -> DivergenceScanner:
    for name in ("refund", "audit"):
        await catalog.put(flows.stored(flows.template(name)))
    return DivergenceScanner(bus, store)


def flow_id(number: int) -> str:
    return f"{number:032x}"


async def happy(bus: Bus, number: int, *, flow_type: str = "refund") -> None:
    messages = (flows.start, flows.enriched, flows.notified)
    await publish(bus, *(entry(flow_id(number), flow_type=flow_type) for entry in messages))


async def diverging(bus: Bus, number: int, *, flow_type: str = "refund") -> int:
    """A flow whose customer is told before anybody knows who it is."""
    entries = [entry(flow_id(number), flow_type=flow_type) for entry in (flows.start, flows.notified)]
    return await publish(bus, *entries)


def numbers(listing: Listing[Seen]) -> list[int]:
    return [int(row.item.flow_id, 16) for row in listing.rows]


async def test_divergences_are_found_newest_first_page_by_page(bus: Bus, scanner: DivergenceScanner) -> None:
    for number in range(1, 13):
        await (diverging if number % 3 == 0 else happy)(bus, number)
    first = await scanner.page(size=3)
    assert numbers(first) == [12, 9, 6]
    # What is stored in between does not upset the pages that follow.
    await diverging(bus, 99)
    rest = await scanner.page(size=3, cursor=first.next_cursor)
    assert (numbers(rest), rest.next_cursor) == ([3], 0)
    seen = first.rows[0].item
    assert seen.divergence.kind == DivergenceKind.DIVERGENCE_KIND_NOT_TRIGGERED
    assert (seen.flow_type, seen.divergence.agent, seen.divergence.version) == ("refund", "notification", 1)


async def test_they_are_found_by_flow_type_agent_and_time(bus: Bus, scanner: DivergenceScanner) -> None:
    await diverging(bus, 1)
    at = await diverging(bus, 2, flow_type="audit")
    await diverging(bus, 3)
    assert numbers(await scanner.page(size=9, flow_type="audit")) == [2]
    assert numbers(await scanner.page(size=9, agent="notification")) == [3, 2, 1]
    assert numbers(await scanner.page(size=9, agent="enrichment")) == []
    message = await bus.by_sequence(FLOW, at)
    assert message is not None
    assert numbers(await scanner.page(size=9, since=message.time)) == [3, 2]


async def test_one_in_a_flow_that_never_began_is_found_and_what_can_not_be_read_hides_none(
    bus: Bus, scanner: DivergenceScanner
) -> None:
    stray = flows.enriched(flow_id(7))
    await publish(bus, stray)
    unknown = flows.start(flow_id(8), flow_type="dance")
    await publish(bus, unknown)
    await bus.publish(f"flow.refund.{flow_id(9)}.event.enrichment.x.{flows.ENRICHED}", b"")
    await bus.publish(flows.start(flow_id(10)).address.subject, b"\xff")
    assert numbers(await scanner.page(size=9)) == [7]


async def test_a_page_that_looked_at_enough_comes_short_with_more_behind_it(
    bus: Bus, scanner: DivergenceScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergences, "EXAMINED", 5)
    await diverging(bus, 1)
    for number in (2, 3):
        await happy(bus, number)
    found, cursor, pages = [], 0, 0
    while True:
        page = await scanner.page(size=9, cursor=cursor)
        found += numbers(page)
        pages += 1
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == [1]
    assert pages == 2
