"""A mesh on a real server, with streams, templates and durables; workers start and stop with the test.

The kit for tests on real servers: `nats_server` and `accounts` are the broker, without and with permissions; `mesh` is
this module; `coordinator` decides; `api` also serves; `people` call it; `processes` are workers in their own processes;
`house` combines all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from handrail.agents import Agent
from handrail.agents.worker import Worker
from handrail.mesh.bus import Bus, BusSettings, NatsBus
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.streams import FLOW, TIMER
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, agent_durable, ensure_durables
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import FlowStatus
from tests.support.flows import stored
from tests.support.waiting import PATIENCE, eventually

COORDINATORS = {DECIDE: FLOW, TRACK: FLOW, DUE: TIMER}
"""The coordinators' durables, and their streams."""


def _place(of: str) -> tuple[str, str]:
    return (COORDINATORS[of], of) if of in COORDINATORS else (FLOW, agent_durable(of))


class Mesh:
    """What a test does with flows, apart from running agents."""

    def __init__(self, bus: NatsBus, catalog: Catalog) -> None:
        self.bus = bus
        self.catalog = catalog
        self.store = FlowStore(bus, catalog)

    async def put(self, *templates: Template) -> None:
        """Stores and activates templates; updates durables and quarantines first."""
        for template in templates:
            await self.catalog.put(stored(template))
        await self.catalog.refresh()
        await ensure_durables(self.bus, self.catalog.all())
        await ensure_quarantines(self.bus, self.catalog.all())
        for template in templates:
            await self.catalog.activate(
                template.name, template.version, by="olga", reason="test", now=datetime.now(UTC)
            )

    async def flow(self, flow_id: str) -> Flow:
        """A refund, folded."""
        return await self.store.load("refund", flow_id)

    async def until(self, flow_id: str, condition: Callable[[Flow], bool], *, within: float = PATIENCE) -> Flow:
        """Reads a refund until the condition holds."""
        return await eventually(lambda: self.flow(flow_id), condition, within=within)

    async def until_status(self, flow_id: str, wanted: str, *, within: float = PATIENCE) -> Flow:
        """Reads a refund until it has this status: `COMPLETED`."""
        return await self.until(flow_id, lambda flow: name_of_status(flow) == wanted, within=within)

    async def durable(self, of: str) -> dict[str, Any]:
        """The broker's information about the durable of an agent or of the coordinators."""
        stream, durable = _place(of)
        return await self.bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")

    async def unsettled(self, of: str) -> int:
        """How many messages a durable has delivered or will deliver."""
        info = await self.durable(of)
        return int(info["num_ack_pending"]) + int(info["num_pending"])

    async def until_settled(self, *of: str) -> None:
        """Waits until each of these durables in turn has nothing left to deliver or to be acknowledged."""
        for each in of:
            await eventually(partial(self.unsettled, each), lambda left: left == 0)

    async def set_ack_wait(self, of: str, wait: timedelta) -> None:
        """Makes the broker redeliver a durable's messages after `wait`."""
        stream, durable = _place(of)
        config = {**(await self.durable(of))["config"], "ack_wait": int(wait / timedelta(microseconds=1)) * 1000}
        await self.bus.request_json(
            f"$JS.API.CONSUMER.CREATE.{stream}.{durable}", {"stream_name": stream, "config": config}
        )

    async def armed(self) -> set[str]:
        """The subjects of the armed timers."""
        info = await self.bus.request_json(f"$JS.API.STREAM.INFO.{TIMER}", {"subjects_filter": "timer.>"})
        return set(info["state"].get("subjects") or {})

    async def messages(self, stream: str = FLOW) -> int:
        """How many messages a stream holds."""
        info = await self.bus.request_json(f"$JS.API.STREAM.INFO.{stream}")
        return int(info["state"]["messages"])

    async def until_messages(self, number: int, *, within: float = 60.0) -> None:
        """Waits until the FLOW stream holds this many messages."""
        await eventually(self.messages, lambda there: there >= number, within=within)


async def publish(bus: Bus, *entries: Entry) -> int:
    """Stores messages one after the other and returns the last sequence."""
    sequence = 0
    for entry in entries:
        sequence = await bus.publish(entry.address.subject, entry.body)
    return sequence


async def publish_at_once(bus: Bus, entries: Iterable[Entry]) -> None:
    """Store messages in any order."""
    await asyncio.gather(*(bus.publish(entry.address.subject, entry.body) for entry in entries))


def name_of_status(flow: Flow) -> str:
    """`COMPLETED`, …"""
    return FlowStatus.Name(status(flow)).removeprefix("FLOW_STATUS_")


@asynccontextmanager
async def workers(
    settings: Callable[[str], BusSettings], agents: Iterable[Agent], *, of_each: int = 1
) -> AsyncIterator[list[Worker]]:
    """Runs workers of these agents in this process. They are ready when the block begins and stop when it ends."""
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
