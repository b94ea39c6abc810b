"""A mesh on a real server: streams, templates and durables there, workers started and stopped with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from handrail.agents import Agent
from handrail.agents.worker import Worker
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.v1.decision_pb2 import FlowStatus
from tests.support.flows import stored
from tests.support.waiting import PATIENCE, eventually


class Mesh:
    """What a test does with flows besides running agents."""

    def __init__(self, bus: NatsBus, catalog: Catalog) -> None:
        self.bus = bus
        self.catalog = catalog
        self.store = FlowStore(bus, catalog)

    async def put(self, *templates: Template) -> None:
        """Store and activate templates, durables first."""
        for template in templates:
            await self.catalog.put(stored(template))
        await self.catalog.refresh()
        await ensure_durables(self.bus, self.catalog.all())
        for template in templates:
            await self.catalog.activate(
                template.name, template.version, by="olga", reason="test", now=datetime.now(UTC)
            )

    async def flow(self, flow_id: str) -> Flow:
        """A refund, folded."""
        return await self.store.load("refund", flow_id)

    async def until(self, flow_id: str, condition: Callable[[Flow], bool], *, within: float = PATIENCE) -> Flow:
        """Read a refund until the condition holds."""
        return await eventually(lambda: self.flow(flow_id), condition, within=within)

    async def until_status(self, flow_id: str, wanted: str, *, within: float = PATIENCE) -> Flow:
        """Read a refund until it has this status: `COMPLETED`."""
        return await self.until(flow_id, lambda flow: name_of_status(flow) == wanted, within=within)

    async def unsettled(self, agent: str) -> int:
        """How many deliveries the agent's durable has handed out, or has still to hand out."""
        info = await self.bus.request_json(f"$JS.API.CONSUMER.INFO.FLOW.agent-{agent}")
        return int(info["num_ack_pending"]) + int(info["num_pending"])

    async def until_settled(self, agent: str) -> None:
        """Wait until the agent has settled everything there is for it."""
        await eventually(lambda: self.unsettled(agent), lambda left: left == 0)

    async def messages(self, stream: str = "FLOW") -> int:
        """How many messages a stream holds."""
        info = await self.bus.request_json(f"$JS.API.STREAM.INFO.{stream}")
        return int(info["state"]["messages"])

    async def until_messages(self, number: int, *, within: float = 60.0) -> None:
        """Wait until the FLOW stream holds so many messages."""
        await eventually(self.messages, lambda there: there >= number, within=within)

    async def set_ack_wait(self, agent: str, wait: timedelta) -> None:
        """Have the broker deliver the agent's messages again after `wait`."""
        info = await self.bus.request_json(f"$JS.API.CONSUMER.INFO.FLOW.agent-{agent}")
        config = {**info["config"], "ack_wait": int(wait / timedelta(microseconds=1)) * 1000}
        await self.bus.request_json(
            f"$JS.API.CONSUMER.CREATE.FLOW.agent-{agent}", {"stream_name": "FLOW", "config": config}
        )


def name_of_status(flow: Flow) -> str:
    """`COMPLETED`, …"""
    return FlowStatus.Name(status(flow)).removeprefix("FLOW_STATUS_")


@asynccontextmanager
async def workers(
    settings: Callable[[str], BusSettings], agents: Iterable[Agent], *, of_each: int = 1
) -> AsyncIterator[list[Worker]]:
    """Workers of these agents, ready, in this process; stopped in order when the block ends."""
    running = [Worker(agent, settings(agent.name)) for agent in agents for _ in range(of_each)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.run()) for worker in running]
        try:
            for worker, task in zip(running, tasks, strict=True):
                ready = group.create_task(worker.ready.wait())
                await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
            yield running
        finally:
            for worker in running:
                worker.stop()
