"""Starting a flow on a real server: once a key, and not to be kept from it by an agent that may not start it."""

from __future__ import annotations

import pytest

from handrail.mesh import ids, starting
from handrail.mesh.bus import Bus
from handrail.mesh.catalog import Catalog
from handrail.mesh.envelope import Entry, pack
from handrail.mesh.subjects import COORDINATOR, Address, Kind
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import ChargebackEnriched
from tests.support import flows
from tests.support.mesh import Mesh, name_of_status

KEY = "c-1"


@pytest.fixture
async def mesh(bus: Bus, catalog: Catalog) -> Mesh:
    """The refund of two steps, stored and active."""
    mesh = Mesh(bus, catalog)
    await mesh.put(flows.template())
    return mesh


def squatter(version: int) -> Entry:
    """An outcome that the enrichment agent may publish, under the id of the first event of the key's flow."""
    flow_id = ids.flow_id_from_key("refund", KEY)
    name = ChargebackEnriched.DESCRIPTOR.full_name
    address = Address("refund", flow_id, Kind.EVENT, "enrichment", ids.start_id(flow_id), name)
    return Entry(
        address,
        Event(
            event_id=address.event_id,
            source="enrichment",
            flow_type="refund",
            flow_id=flow_id,
            template_version=version,
            output_total=1,
            data=pack(ChargebackEnriched()),
        ),
    )


async def start(mesh: Mesh) -> starting.Started:
    """Start the flow of the key, as the coordinator does."""
    template = await mesh.catalog.active("refund")
    return await starting.start(
        mesh.bus, template, source=COORDINATOR, data=pack(flows.received()), key=KEY, requester="olga"
    )


async def test_p3_a_key_begins_one_flow(mesh: Mesh) -> None:
    first, second = await start(mesh), await start(mesh)
    assert (first.already_started, second.already_started) == (False, True)
    assert (first.flow_id, first.sequence) == (second.flow_id, second.sequence)


@pytest.mark.parametrize("version", [1, 99], ids=["a known version", "an unknown version"])
async def test_p7_an_agent_that_may_not_start_a_flow_does_not_keep_others_from_it(mesh: Mesh, version: int) -> None:
    taken = squatter(version)
    await mesh.bus.publish(taken.address.subject, taken.body)
    started = await start(mesh)
    assert not started.already_started
    flow = await mesh.flow(started.flow_id)
    assert flow.requester == "olga"
    assert name_of_status(flow) == "RUNNING"
    assert len(flow.void) == 1
    assert (await start(mesh)).already_started
