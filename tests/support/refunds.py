"""Refunds on a real server, started without any agent."""

from __future__ import annotations

from handrail.mesh.streams import start_flow
from handrail.mesh.wire.envelope import pack
from tests.support.agents import received
from tests.support.mesh import Mesh


async def begin(mesh: Mesh, *, key: str = "", chargeback_id: str = "cb-1", as_agent: str = "detection") -> str:
    """Starts a refund as this agent, or as the coordinator. Returns its flow id."""
    active = await mesh.catalog.active("refund")
    started = await start_flow.start(mesh.bus, active, source=as_agent, data=pack(received(chargeback_id)), key=key)
    return started.flow_id
