"""A scan goes on when the broker ends its consumer, also where it has to begin with the first message again."""

from __future__ import annotations

import pytest

from handrail.coordinator.lists.bulk_read import scan
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from tests.support.recorded_refunds import record

PAGE = 50


@pytest.mark.parametrize("subjects_only", [True, False])
async def test_p7_a_scan_whose_consumer_is_lost_reads_the_rest(bus: NatsBus, *, subjects_only: bool) -> None:
    stored = await record(bus, 200, seed=5)
    sequences: list[int] = []
    was_ended = False
    async with scan(bus, FLOW, "flow.>", subjects_only=subjects_only, page=PAGE) as scanning:
        async for page in scanning.pages():
            sequences += [each.sequence for each in page]
            if len(sequences) >= stored // 2 and not was_ended:
                await end_scans(bus)
                was_ended = True
    assert was_ended
    assert sequences == sorted(set(sequences))
    assert len(sequences) == stored


async def end_scans(bus: NatsBus) -> None:
    """Has the broker forget the consumers of scans, as it does when its leader dies."""
    names = (await bus.request_json(f"$JS.API.CONSUMER.NAMES.{FLOW}"))["consumers"]
    scans = [name for name in names if name.startswith("scan-")]
    assert scans
    for name in scans:
        await bus.request_json(f"$JS.API.CONSUMER.DELETE.{FLOW}.{name}")
