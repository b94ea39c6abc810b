"""`World`: agents and the coordinator's own decisions in memory, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

from google.protobuf.message import Message

from handrail.agents import Agent, DeclarationError
from handrail.agents.threads import Threads
from handrail.coordinator.decide import operator_requests, two_persons, votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import BREAKGLASS, EVERY_TYPE, OPERATOR, Grant, of_roles
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh.flow import Proposal
from handrail.mesh.flow.work import Moment, Work
from handrail.mesh.fold import NO_VERSIONS, Versions
from handrail.mesh.streams import outcomes, start_flow
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.testing.hosting import CrashPoint, HostedAgent, HostedCoordinator
from handrail.testing.memory import MemoryBus
from handrail.testing.schedule import Schedule
from handrail.testing.view import FlowView
from handrail.v1.decision_pb2 import Choice
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.flow_service_pb2 import MigrateFlowRequest
from handrail.v1.template_pb2 import StoredTemplate

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
"""When every World begins."""


class World:
    """A small mesh in memory: real handlers in the real SDK, the real fold and real decisions; no server.

        async with World(templates=[refund], agents=[enrichment.agent, ledger.agent]) as world:
            flow = await world.start("refund", ChargebackReceived(...))
            await world.advance(timedelta(hours=4))
            assert flow.status == "COMPLETED"

    Nothing happens by itself: every method that changes something runs the World until it is idle before it returns.
    Only `advance` moves the clock. With a `seed`, messages are delivered in an order that the seed determines.
    """

    def __init__(self, *, templates: Iterable[Template], agents: Iterable[Agent] = (), seed: int | None = None) -> None:
        self.bus = MemoryBus(BEGINNING)
        self._templates = list(templates)
        self._threads = Threads(1)
        self.coordinator = HostedCoordinator(self.bus)
        self._agents = {agent.name: HostedAgent(agent, self.bus, self._threads) for agent in agents}
        self._schedule = Schedule(self.bus, self.coordinator, self._agents, seed=seed)

    async def __aenter__(self) -> World:
        for template in self._templates:
            await self._put(template)
        await self._learn()
        for hosted in self._agents.values():
            hosted.agent.attach(hosted.bus, hosted.catalog)
        return self

    async def __aexit__(self, *_: object) -> None:
        for hosted in self._agents.values():
            hosted.agent.detach()
        self._threads.shutdown()

    @property
    def now(self) -> datetime:
        """The clock."""
        return self.bus.now

    @property
    def quarantined(self) -> list[Quarantined]:
        """The quarantined messages, oldest first."""
        return [Quarantined.FromString(message.body) for message in self.bus.quarantined]

    async def put(self, template: Template) -> None:
        """Stores and activates another template or version."""
        self._templates.append(template)
        await self._put(template)
        await self._learn()

    async def start(
        self, flow_type: str, event: Message, *, key: str = "", by: str = "", requester: str = ""
    ) -> FlowView:
        """Starts a flow: as the agent `by`, or through the coordinator for `requester`."""
        template = await self.coordinator.catalog.active(flow_type)
        started = await start_flow.start(
            self.bus, template, source=by or COORDINATOR, data=pack(event), key=key, requester=requester
        )
        await self.settle()
        return self.flow(flow_type, started.flow_id)

    def flow(self, flow_type: str, flow_id: str) -> FlowView:
        """Returns a view of a flow."""
        return FlowView(self.bus, self._templates, flow_type, flow_id)

    async def run_sources(self, agent: str) -> None:
        """Runs the sources of an agent until they end."""
        for source in self._agents[agent].agent.sources:
            await source()
        await self.settle()

    async def publish(self, subject: str, body: bytes) -> int:
        """Stores any message, as a program without the SDK could. Returns its sequence."""
        sequence = await self.bus.publish(subject, body)
        await self.settle()
        return sequence

    async def answer(self, flow: FlowView, step: str, message: Message) -> None:
        """Answers the one pending run of an external step, as somebody does who speaks for its agent through the API.

        Raises ValueError unless the step is external and one run of it is pending.
        """
        pending = [run for run in flow.owed if run.step.name == step and run.step.external]
        if len(pending) != 1:
            raise ValueError(f"flow {flow.flow_id} has {len(pending)} pending runs of an external step {step}, not one")
        [run] = pending
        work = Work(
            template=flow.flow.template,
            flow_id=flow.flow_id,
            step=run.step,
            root=run.root,
            run=run.run,
            attempt=run.attempt,
            cause=run.trigger.event_id,
        )
        await outcomes.store(self.bus, work.outcome(pack(message), moment=Moment(self.now), total=1))
        await self.settle()

    async def approve(self, flow: FlowView, *, voter: str, roles: Iterable[str], comment: str = "") -> None:
        """Votes yes on the flow's only waiting proposal. Raises like ApprovalService."""
        await self._vote(flow, True, voter, roles, comment)

    async def reject(self, flow: FlowView, *, voter: str, roles: Iterable[str], comment: str = "") -> None:
        """Votes no on the flow's only waiting proposal."""
        await self._vote(flow, False, voter, roles, comment)

    async def compensate(
        self,
        flow: FlowView,
        *,
        by: str = "operator",
        reason: str = "",
        to_step: str = "",
        run_again: Iterable[str] = (),
    ) -> None:
        """Compensates the flow, fully or back to a step; steps in `run_again` may run a second time."""
        judge = partial(operator_requests.compensation, reason=reason, to_step=to_step, run_again=run_again)
        await self._record(flow, judge, Caller(by))

    async def cancel(
        self, flow: FlowView, *, by: str = "operator", reason: str = "", keep_effects: bool = False
    ) -> None:
        """Cancels the flow."""
        judge = partial(operator_requests.cancelling, reason=reason, keep_effects=keep_effects)
        await self._record(flow, judge, Caller(by))

    async def migrate(
        self, flow: FlowView, version: int, *, by: str = "operator", reason: str = "", request_id: str = ""
    ) -> None:
        """Moves the flow to another version of its template. Raises WRONG_STATUS with the reasons if it can't move."""
        target = await self.coordinator.catalog.template(flow.flow_type, version)
        judge = partial(operator_requests.migrating, target=target, reason=reason)
        asked = MigrateFlowRequest(flow_id=flow.flow_id, to_version=version, reason=reason, request_id=request_id)
        caller = Caller(by)
        await self._record(flow, judge, caller, request=caller_request(asked, caller), versions={version: target})

    async def retry_step(
        self, flow: FlowView, step: str, *, by: str = "operator", root: str = "", run_again: Iterable[str] = ()
    ) -> None:
        """Repeats a step."""
        judge = partial(operator_requests.retrying, step=step, root=root, run_again=run_again)
        await self._record(flow, judge, Caller(by))

    async def resolve(
        self, flow: FlowView, choice: Choice.ValueType, *, by: str = "operator", run_again: Iterable[str] = ()
    ) -> None:
        """Answers the flow's only open escalation."""
        judge = partial(operator_requests.answer, choice=choice, run_again=run_again)
        await self._record(flow, judge, Caller(by))

    async def confirm(self, flow: FlowView, *, by: str, break_glass: str = "") -> None:
        """Confirms the one act of the flow that waits for a second person, or does it alone with a reason."""
        waiting = flow.acts
        if len(waiting) != 1:
            raise ValueError(f"flow {flow.flow_id} has {len(waiting)} acts that wait, not one")
        judge = partial(
            two_persons.confirming,
            act_id=waiting[0].act_id,
            digest=waiting[0].digest,
            break_glass_reason=break_glass,
            now=self.now,
        )
        grants = frozenset(Grant(role, EVERY_TYPE) for role in (OPERATOR, BREAKGLASS))
        stored = {each.version: each for each in self._templates if each.name == flow.flow_type}
        await self._record(flow, judge, Caller(by, grants), versions=stored)

    def stop_agent(self, name: str) -> None:
        """Stops all workers of this agent: its messages wait."""
        self._agents[name].running = False

    async def start_agent(self, name: str) -> None:
        """Starts a worker of this agent again."""
        self._agents[name].running = True
        await self.settle()

    def crash_agent(self, name: str, at: CrashPoint) -> None:
        """Kills the agent's process at its next `publish` (the handler has run, nothing is stored) or `ack` (everything
        is stored). A new process takes over at once; the message is redelivered when the broker's ack wait is over.
        """
        self._agents[name].bus.crash = at

    def stop_coordinator(self) -> None:
        """Stops the coordinator."""
        self.coordinator.stop()

    async def start_coordinator(self) -> None:
        """Starts the coordinator again; it catches up. The time without it counts against no deadline."""
        self.coordinator.start()
        await self._schedule.catch_up()

    async def settle(self) -> None:
        """Runs everything that is due at the present time."""
        await self._schedule.settle()

    async def advance(self, duration: timedelta) -> None:
        """Moves the clock, and runs everything that falls due on the way, in order."""
        await self._schedule.advance(duration)

    async def _put(self, template: Template) -> None:
        catalog = self.coordinator.catalog
        stored = StoredTemplate(
            template=template.proto, descriptors=template.descriptor_set, digest=template.digest, put_by="test"
        )
        await catalog.put(stored)
        await catalog.activate(template.name, template.version, by="test", reason="", now=self.now)

    async def _learn(self) -> None:
        problems = [problem for hosted in self._agents.values() for problem in await hosted.learn(self._templates)]
        if problems:
            raise DeclarationError(problems)

    async def _vote(self, flow: FlowView, approve: bool, voter: str, roles: Iterable[str], comment: str) -> None:
        waiting: list[Proposal] = flow.approvals
        if len(waiting) != 1:
            raise ValueError(f"flow {flow.flow_id} has {len(waiting)} waiting approvals, not one")
        judge = partial(
            votes.vote,
            approval_id=waiting[0].recorded.event_id,
            digest=waiting[0].digest,
            approve=approve,
            comment=comment,
        )
        await self._record(flow, judge, Caller(voter, of_roles(roles)))

    async def _record(
        self,
        flow: FlowView,
        judge: operator_requests.Judge,
        caller: Caller,
        *,
        request: CallerRequest | None = None,
        versions: Versions = NO_VERSIONS,
    ) -> None:
        await self.coordinator.operator_actions.record(
            flow.flow_type, flow.flow_id, judge, caller=caller, request=request, versions=versions
        )
        await self.settle()
