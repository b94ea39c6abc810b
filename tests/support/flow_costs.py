"""The benchmark's flows on a real server, with their operations counted. The coordinator runs in this process, each
agent in one of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.first_event import first_message, starting
from handrail.cli.dev.package import load_package
from handrail.coordinator.decide import decide
from handrail.coordinator.decide.timers import timers
from handrail.mesh.bus import BusSettings, NatsBus, Page, RawMessage
from handrail.mesh.contracts import Contracts
from handrail.mesh.fold.evolve import _apply
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import decode
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1 import approval_service_pb2 as pb
from handrail.v1.decision_pb2 import ApprovalRequested
from handrail.v1.event_pb2 import Event
from tests.support.api import Api, bearer, running_api
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer
from tests.support.operations import Meter, counted_calls, metered
from tests.support.processes import worker_process
from tests.support.waiting import eventually

_PACKAGE = "bench.chain"
_LAST = {
    "happy": "payments.v1.CustomerNotified",
    "compensated": "handrail.v1.FlowClosed",
    "approved": "payments.v1.LargeRefundGranted",
}
"""Maps a flow type to the type of its last message."""

Costs = Mapping[str, int]
"""Maps an operation, with the process that does it, to its number. Operations that did not happen are left out."""


class CountedFlows:
    """Runs flows of `bench.chain` and tells what they cost."""

    def __init__(self, mesh: Mesh, api: Api, meters: Mapping[str, Meter], calls: Mapping[str, Counter[str]]) -> None:
        self._mesh = mesh
        self._api = api
        self._meters = meters
        self._calls = calls
        self._names = itertools.count(1)
        self._token = api.token("anna", "finance")

    async def run(self, flow_type: str, flows: int = 1) -> Costs:
        """Runs so many flows at once, from the first event until everything is acknowledged. Returns what all of them
        cost together.
        """
        flow_ids = [f"{next(self._names):032x}" for _ in range(flows)]
        data = first_message()
        for flow_id in flow_ids:
            subject, body = starting(flow_type, flow_id, data)
            await self._mesh.bus.publish(subject, body)
        await asyncio.gather(*(self._ended(flow_type, flow_id) for flow_id in flow_ids))
        await self._mesh.until_settled(TRACK, DECIDE)
        return await self._costs(flow_type, flow_ids)

    async def _ended(self, flow_type: str, flow_id: str) -> None:
        if flow_type == "approved":
            await self._approve(flow_id)
        kind = "released" if flow_type == "approved" else "*"
        await self._message(f"flow.{flow_type}.{flow_id}.{kind}.*.*.{_LAST[flow_type]}")

    async def _approve(self, flow_id: str) -> None:
        asked = await self._message(f"flow.approved.{flow_id}.decision.*.*.{ApprovalRequested.DESCRIPTOR.full_name}")
        # People take longer than the coordinator collects messages: what led to the question is done before the vote.
        await self._mesh.until_settled(DECIDE)
        request = ApprovalRequested.FromString(Event.FromString(asked.body).data.value)
        vote = pb.ApproveProposalRequest(approval_id=f"approved.{flow_id}.{request.proposal_id}", digest=request.digest)
        await self._api.call(
            "ApprovalService/ApproveProposal", vote, pb.ApproveProposalResponse, metadata=bearer(self._token)
        )

    async def _message(self, subject_filter: str) -> RawMessage:
        found = await eventually(lambda: self._mesh.bus.direct_get(FLOW, multi_last=[subject_filter]), _has_one)
        return found.messages[0]

    async def _costs(self, flow_type: str, flow_ids: Collection[str]) -> Costs:
        pages = [
            await self._mesh.bus.direct_get(FLOW, multi_last=[f"flow.{flow_type}.{flow_id}.>"]) for flow_id in flow_ids
        ]
        sequences = {message.sequence for page in pages for message in page.messages}
        costs = Counter({"messages": len(sequences)})
        for process, meter in self._meters.items():
            for operation, number in meter.count(flow_ids, sequences).items():
                costs[f"{process}: {operation}"] = number
        for function, calls in self._calls.items():
            costs[f"coordinator: {function}"] = sum(calls[flow_id] for flow_id in flow_ids)
        return dict(+costs)


def _has_one(page: Page) -> bool:
    return bool(page.messages)


@asynccontextmanager
async def counted_flows(server: NatsServer, folder: Path) -> AsyncIterator[CountedFlows]:
    """Runs the installation while the block runs."""
    package = load_package(_PACKAGE)
    contracts = Contracts.from_descriptor_set(package.descriptors)
    async with AsyncExitStack() as stack:
        meters = {name: await stack.enter_async_context(metered(server.port)) for name in ("coordinator", "agents")}
        bus, metered_bus = [
            await stack.enter_async_context(await NatsBus.connect(BusSettings(servers=(url,), name=COORDINATOR)))
            for url in (server.url, meters["coordinator"].url)
        ]
        await ensure_streams(bus)
        mesh = Mesh(bus, Catalog(bus))
        await mesh.put(*(Template.compile(proto, contracts) for proto in package.templates))
        api = await stack.enter_async_context(running_api(metered_bus, folder))
        for name, path in package.agents.items():
            environment = {"HANDRAIL_NATS": meters["agents"].url}
            stack.enter_context(worker_process(server, path, log=folder / f"{name}.log", environment=environment))
        calls = {name: stack.enter_context(counted) for name, counted in _counted_functions().items()}
        flows = CountedFlows(mesh, api, meters, calls)
        for flow_type in _LAST:
            await flows.run(flow_type)
        yield flows


def _counted_functions() -> Mapping[str, AbstractContextManager[Counter[str]]]:
    return {
        "decodes": counted_calls(decode, lambda subject, *_: subject.split(".")[2]),
        "folds": counted_calls(_apply, lambda flow, recorded, *_: recorded.address.flow_id),
        "decides": counted_calls(decide, lambda flow, *_: flow.flow_id),
        "timer plans": counted_calls(timers, lambda flow, *_: flow.flow_id),
    }
