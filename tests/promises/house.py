"""A whole installation for one test: a server that runs on generated permissions, one flow type, agents and
coordinators that come and go, and people who call over gRPC.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from handrail.agents import Agent
from handrail.agents.worker import Worker
from handrail.mesh import permissions
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.streams import ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import pack
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import quarantine_service_pb2 as quarantine
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import Choice, FlowStatus
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub
from tests.support.api import Api, bearer, running_api
from tests.support.mesh import Mesh, workers
from tests.support.nats_server import NatsServer, running_server
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class House:
    """A server with the streams, the template stored and active. `mesh` reads and writes as the coordinator's user."""

    def __init__(self, server: NatsServer, folder: Path, template: Template, stack: AsyncExitStack) -> None:
        self.server = server
        self.folder = folder
        self.template = template
        self._stack = stack

    async def prepare(self) -> None:
        """Make streams and durables, and activate the template: what a coordinator does once."""
        bus = await self.connect("coordinator")
        await ensure_streams(bus)
        self.mesh = Mesh(bus, Catalog(bus))
        await self.mesh.put(self.template)

    def settings(self, user: str) -> BusSettings:
        """How this user connects."""
        return self.server.settings(user, user=user, password=password(user))

    async def connect(self, user: str) -> NatsBus:
        """A bus of this user's, closed when the test ends."""
        return await self._stack.enter_async_context(await NatsBus.connect(self.settings(user)))

    @asynccontextmanager
    async def working(self, agents: Iterable[Agent], *, of_each: int = 1) -> AsyncIterator[list[Worker]]:
        """Agents at work in this process, each as its own user."""
        async with workers(self.settings, agents, of_each=of_each) as running:
            yield running

    @asynccontextmanager
    async def coordinator(self, **settings: Any) -> AsyncIterator[People]:
        """A coordinator that decides and serves for as long as the block runs."""
        async with (
            await NatsBus.connect(self.settings("coordinator")) as bus,
            running_api(bus, self.folder, **settings) as api,
        ):
            yield People(api)

    def process(self, user: str, path: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker of the agent `module:agent` as a process of its own, ended with the test; its log is in `log`."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("HANDRAIL_", "OTEL_"))}
        broker = {
            "HANDRAIL_NATS": self.server.url,
            "HANDRAIL_NATS_USER": user,
            "HANDRAIL_NATS_PASSWORD": password(user),
        }
        with self.log(user).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "handrail.agents.runner", path],
                cwd=ROOT,
                env={**plain, **broker, **environment},
                stdout=log,
                stderr=log,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def log(self, user: str) -> Path:
        """What the processes of a user's agent wrote."""
        return self.folder / f"{user}.log"

    async def start(self, data: Message, *, by: str = "detection", key: str = "") -> str:
        """Begin a flow as this agent would; its flow id."""
        started = await start_flow.start(self.mesh.bus, self.template, source=by, data=pack(data), key=key)
        return started.flow_id

    async def deliver_again_soon(self) -> None:
        """Have the broker deliver to agents again after a second without an ack, instead of thirty."""
        for agent in {step.agent for step in self.template.steps.values()}:
            await self.mesh.set_ack_wait(agent, timedelta(seconds=1))

    async def set_limit(self, stream: str, messages: int) -> None:
        """Let a stream hold so many messages; -1 for any number."""
        config = (await self.mesh.bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["config"]
        await self.mesh.bus.request_json(f"$JS.API.STREAM.UPDATE.{stream}", {**config, "max_msgs": messages})

    async def until_quiet(self) -> None:
        """Wait until everything that was delivered, or is to be, has been settled by whom it was for."""
        for stream, durable in (("FLOW", "decide"), ("FLOW", "track"), ("TIMER", "due")):
            await eventually(lambda s=stream, d=durable: self.unsettled(s, d), lambda left: left == 0)  # type: ignore[misc]

    async def unsettled(self, stream: str, durable: str) -> int:
        """How many deliveries a durable has handed out, or has still to hand out."""
        info = await self.mesh.bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
        return int(info["num_ack_pending"]) + int(info["num_pending"])


class People:
    """Calls over gRPC: olga operates, vera looks, anna and ben are of finance."""

    ROLES: Mapping[str, Sequence[str]] = {
        "olga": ("operator",),
        "vera": ("viewer",),
        "stan": ("starter", "finance"),
        "anna": ("finance",),
        "ben": ("finance",),
    }

    def __init__(self, api: Api) -> None:
        self.api = api
        self.flows = FlowServiceStub(api.channel)
        self.approvals = ApprovalServiceStub(api.channel)
        self.quarantine = QuarantineServiceStub(api.channel)

    def by(self, name: str, *, agent: str = "") -> Sequence[tuple[str, str]]:
        """Whose call it is, as metadata."""
        return bearer(self.api.token(name, *self.ROLES.get(name, ()), agent=agent))

    async def start(self, data: Message, *, by: str = "olga", key: str = "") -> flows.StartFlowResponse:
        """Begin a flow."""
        request = flows.StartFlowRequest(flow_type="refund", data=pack(data), key=key)
        return await self.flows.StartFlow(request, metadata=self.by(by))

    async def flow(self, flow_id: str) -> flows.Flow:
        """The flow as it stands."""
        answer = await self.flows.GetFlow(flows.GetFlowRequest(flow_id=flow_id), metadata=self.by("vera"))
        return answer.flow

    async def until(self, flow_id: str, condition: Callable[[flows.Flow], bool]) -> flows.Flow:
        """Look at the flow until the condition holds."""
        return await eventually(lambda: self.flow(flow_id), condition)

    async def until_status(self, flow_id: str, wanted: str) -> flows.Flow:
        """Look at the flow until it has this status: `COMPLETED`."""
        return await self.until(flow_id, lambda flow: name_of(flow.status) == wanted)

    async def events(self, flow_id: str) -> list[Any]:
        """The recorded events of a flow."""
        request = flows.ListFlowEventsRequest(flow_id=flow_id, page_size=500)
        return list((await self.flows.ListFlowEvents(request, metadata=self.by("vera"))).events)

    async def approval(self, flow_id: str) -> flows.Approval:
        """The approval that the flow waits for, as soon as it does."""
        return (await self.until_status(flow_id, "WAITING_APPROVAL")).approvals[0]

    async def approve(self, approval: flows.Approval, *, by: str, digest: str = "") -> flows.Approval:
        """Vote yes."""
        request = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=digest or approval.digest)
        return (await self.approvals.ApproveProposal(request, metadata=self.by(by))).approval

    async def reject(self, approval: flows.Approval, *, by: str) -> flows.Approval:
        """Vote no."""
        request = approvals.RejectProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        return (await self.approvals.RejectProposal(request, metadata=self.by(by))).approval

    async def resolve(self, flow_id: str, choice: Choice.ValueType) -> flows.Flow:
        """Answer the flow's one escalation."""
        request = flows.ResolveEscalationRequest(flow_id=flow_id, choice=choice, reason="a test")
        return (await self.flows.ResolveEscalation(request, metadata=self.by("olga"))).flow

    async def compensate(self, flow_id: str, *, to_step: str = "", run_again: Iterable[str] = ()) -> flows.Flow:
        """Have the flow's effects undone."""
        request = flows.CompensateFlowRequest(flow_id=flow_id, reason="a test", to_step=to_step, run_again=run_again)
        return (await self.flows.CompensateFlow(request, metadata=self.by("olga"))).flow

    async def quarantined(self) -> list[quarantine.QuarantinedMessage]:
        """Everything in quarantine, with its bytes."""
        found: list[quarantine.QuarantinedMessage] = []
        request = quarantine.ListQuarantinedRequest(page_size=100)
        while True:
            page = await self.quarantine.ListQuarantined(request, metadata=self.by("vera"))
            for each in page.messages:
                one = quarantine.GetQuarantinedRequest(quarantine_id=each.quarantine_id)
                found.append((await self.quarantine.GetQuarantined(one, metadata=self.by("vera"))).message)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


def password(user: str) -> str:
    """A user's password on the broker."""
    return f"secret-of-{user}"


def name_of(status: FlowStatus.ValueType) -> str:
    """`COMPLETED`, …"""
    return FlowStatus.Name(status).removeprefix("FLOW_STATUS_")


@asynccontextmanager
async def building(folder: Path, template: Template) -> AsyncIterator[House]:
    """An installation of this flow type for as long as the block runs."""
    proto = template.proto
    accounts = permissions.render([proto], {user.name: password(user.name) for user in permissions.users([proto])})
    with running_server(folder / "nats", accounts=accounts) as server:
        async with AsyncExitStack() as stack:
            house = House(server, folder, template, stack)
            await house.prepare()
            yield house
