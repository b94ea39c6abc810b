"""What comes after a flow was purged does not change what the index has of it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from tests.support import flows
from tests.support.followed import following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.purging import old_flow_id, purge


@pytest.mark.parametrize("derived", [True, False], ids=["of a key", "of a random id"])
async def test_p4_a_late_message_does_not_replace_the_row_of_its_flow(
    mesh: Mesh, bus: NatsBus, engine: Engine, derived: bool
) -> None:
    await mesh.put(flows.template())
    flow_id = flows.FLOW_ID if derived else old_flow_id()
    await publish(bus, flows.start(flow_id), flows.enriched(flow_id), flows.notified(flow_id))
    async with following(bus, engine):
        await until_covered(bus, engine)
        rows = found(engine)
        assert [row[:3] for row in rows["flow"]] == [(1, "refund", flow_id)]
        await purge(bus, mesh.store, flow_id)
        late = await publish(bus, flows.notified(flow_id))
        await until_covered(bus, engine)
    after = found(engine)
    assert {name: after[name] for name in after if name != "unfolded"} == {
        name: rows[name] for name in rows if name != "unfolded"
    }
    [unfolded] = after["unfolded"]
    assert unfolded[:2] == ("refund", flow_id)
    assert "archive" in str(unfolded[2])
    assert unfolded[3] == late
