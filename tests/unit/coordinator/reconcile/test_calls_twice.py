"""Every call that changes something, twice, in between others, on two replicas, against a model of what it may do.

The model: a call that was answered is answered the same again, whichever replica it reaches, and has nothing recorded;
its id with anything else in it is refused; and what is refused has nothing recorded.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from handrail.coordinator.api.authorization import set_caller
from handrail.coordinator.api.delegation_log import DelegationLog
from handrail.coordinator.api.flow_lookup import Finder
from handrail.coordinator.api.publish_event import Publishing
from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.api.services.approvals import ApprovalService
from handrail.coordinator.api.services.flows import FlowService
from handrail.coordinator.api.tokens.revocations import NOTHING
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.mesh.bus import Page
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, RunState
from handrail.mesh.streams import FLOW
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.testing.hosting import HostedCoordinator
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, RejectProposalRequest
from handrail.v1.decision_pb2 import Choice
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import (
    CancelFlowRequest,
    CompensateFlowRequest,
    MigrateFlowRequest,
    PublishEventRequest,
    ResolveEscalationRequest,
    RetryStepRequest,
    StartFlowRequest,
)
from payments.v1.payments_pb2 import RefundReversed
from tests.support.agents import CHAIN, enriched, notified, paid, received, template
from tests.support.flows import stored
from tests.support.lagging import BehindMemoryBus

GATED = (
    CHAIN
    + """
gates:
  - {name: look, on: payments.v1.ChargebackEnriched, approvers: {roles: [finance], quorum: 2}, on_expiry: WAIT}
"""
)
ANSWERS: dict[str, Callable[[], Message]] = {"enrich": enriched, "pay": paid, "notify": notified}
PEOPLE = {
    name: Caller(name, of_roles(roles))
    for name, roles in {"olga": ("operator",), "anna": ("finance",), "ben": ("finance",), "vera": ()}.items()
}
CALLS = 45
"""Calls of one run, each of them made two or three times."""


class Jittery(BehindMemoryBus):
    """A bus on which others get their turn before each answer."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(datetime(2030, 1, 1, tzinfo=UTC))
        self.chance = chance

    async def publish(self, subject: str, body: bytes, **options: Any) -> int:
        """Later, and a moment later each time."""
        await self._wait()
        self.now += timedelta(milliseconds=1)
        return await super().publish(subject, body, **options)

    async def direct_get(self, stream: str, **options: Any) -> Page:
        """Later."""
        await self._wait()
        return await super().direct_get(stream, **options)

    async def _wait(self) -> None:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)


class Replica:
    """One coordinator with its services."""

    def __init__(self, bus: Jittery) -> None:
        self.host = HostedCoordinator(bus)
        finder = Finder(bus, self.host.store)
        nothing = cast("Any", None)
        flows = FlowService(
            finder=finder,
            reader=nothing,
            catalog=self.host.catalog,
            lists=nothing,
            divergences=nothing,
            failures=nothing,
            watcher=nothing,
            publishing=Publishing(bus, self.host.catalog, self.host.store),
            operator_actions=self.host.operator_actions,
            bus=bus,
        )
        approvals = ApprovalService(
            finder=finder,
            reader=nothing,
            lists=nothing,
            operator_actions=self.host.operator_actions,
            delegations=DelegationLog(bus),
            revocations=lambda: NOTHING,
        )
        self._services = (flows, approvals)

    async def call(self, caller: Caller, request: Message) -> bytes:
        """Serve one call as the server does; the answer's bytes."""

        async def serve() -> bytes:
            method = request.DESCRIPTOR.name.removesuffix("Request")
            service = next(each for each in self._services if hasattr(each, method))
            set_caller(caller, f"/handrail.v1.{type(service).__name__}/{method}")
            serve: Callable[[Message, None], Awaitable[Message]] = getattr(service, method)
            return (await serve(request, None)).SerializeToString(deterministic=True)

        return await asyncio.create_task(serve())


class Callers:
    """People and agents that call two replicas, and the model of what their calls may do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.bus = Jittery(self.chance)
        self.replicas = (Replica(self.bus), Replica(self.bus))
        self.flow_id = ""
        self.answered: list[tuple[Caller, Message, bytes]] = []
        self.refused = 0

    async def open(self) -> None:
        """Store two versions, and begin a flow."""
        catalog = self.replicas[0].host.catalog
        for text in (GATED, GATED.replace("version: 1", "version: 2")):
            await catalog.put(stored(template(text)))
        await catalog.activate("refund", 1, by="olga", reason="", now=self.bus.now)
        await self.begin()

    async def begin(self) -> None:
        """Begin a flow: twice, as everything."""
        request = StartFlowRequest(flow_type="refund", data=pack(received()))
        await self.twice(PEOPLE["olga"], request)
        answer = self.answered[-1][2]
        started = next(each for each in (_answer_of(request, answer),))
        self.flow_id = started.flow_id

    async def run(self) -> None:
        """Make calls, most of them sensible as the flow stands."""
        for _ in range(CALLS):
            flow = await self.settled()
            if flow.closed and self.chance.random() < 0.4:
                await self.begin()
                continue
            candidates = list(self._sensible(flow)) if self.chance.random() < 0.8 else list(self._any(flow))
            await self.twice(*self.chance.choice(candidates or list(self._any(flow))))
            if self.answered and self.chance.random() < 0.3:
                await self.again(*self.chance.choice(self.answered))

    async def settled(self) -> Flow:
        """The flow, with all decided that is due, as a replica does on each message."""
        host = self.chance.choice(self.replicas).host
        self.bus.now += timedelta(seconds=self.chance.choice([0, 0, 2, 40]))
        return await host._reconciler.reconcile("refund", self.flow_id, since=0, at_least=0, now=self.bus.now)

    async def twice(self, caller: Caller, request: Any) -> None:
        """Make a call, twice: one after the other, or both at once."""
        request.request_id = str(uuid.UUID(int=self.chance.getrandbits(128)))
        before = len(self.bus.messages[FLOW])
        if self.chance.random() < 0.3:
            both = await asyncio.gather(*(self._ask(each, caller, request) for each in self.replicas))
        else:
            both = [await self._ask(self.chance.choice(self.replicas), caller, request)]
        recorded = self._recorded(request.request_id)
        if all(isinstance(answer, HandrailError) for answer in both):
            assert not recorded, f"{both[0]!r} was given, and the call recorded"
            assert before == len(self.bus.messages[FLOW])
            self.refused += 1
            return
        answer = await self._ask(self.chance.choice(self.replicas), caller, request)
        assert all(not isinstance(each, HandrailError) for each in (*both, answer)), (request, both, answer)
        if len(both) == 1:
            assert answer == both[0], f"{request.DESCRIPTOR.name} is answered otherwise the second time"
        assert recorded <= 1
        self.answered.append((caller, request, cast("bytes", answer)))

    async def again(self, caller: Caller, request: Any, answer: bytes) -> None:
        """Make a call that was answered long ago; and another one with its id."""
        before = len(self.bus.messages[FLOW])
        self.bus.lag(as_of=self.chance.randrange(before + 1), reads=self.chance.randrange(4))
        if self._recorded(request.request_id):
            assert await self._ask(self.chance.choice(self.replicas), caller, request) == answer
            other = type(request)()
            other.CopyFrom(request)
            if "reason" in request.DESCRIPTOR.fields_by_name:
                other.reason = f"{request.reason}, or not"
                refused = await self._ask(self.chance.choice(self.replicas), caller, other)
                assert isinstance(refused, HandrailError)
                assert refused.reason == ErrorReason.ERROR_REASON_REQUEST_ID_REUSED
        self.bus.lag(reads=0)
        assert len(self.bus.messages[FLOW]) == before

    def _recorded(self, request_id: str) -> int:
        """How many messages a request has in the stream."""
        return sum(request_id.encode() in message.body for message in self.bus.messages[FLOW])

    async def _ask(self, replica: Replica, caller: Caller, request: Message) -> bytes | HandrailError:
        try:
            return await replica.call(caller, request)
        except HandrailError as error:
            return error

    def _sensible(self, flow: Flow) -> Iterator[tuple[Caller, Message]]:
        """What may count as the flow stands."""
        for run in flow.runs.values():
            if run.state is RunState.OWED:
                yield self._outcome(flow, run.step.name, run.root, run.run, run.attempt)
                yield self._failure(flow, run.step.name, run.root, run.run, run.attempt)
            elif self.chance.random() < 0.3:
                yield (
                    PEOPLE["olga"],
                    RetryStepRequest(flow_id=self.flow_id, step=run.step.name, root=run.root, reason="again"),
                )
        for effect in flow.effects.values():
            if effect.deadline is not None:
                yield self._undone(flow, effect.recorded.event_id, effect.attempt)
        for event_id, proposal in flow.proposals.items():
            for voter in ("anna", "ben"):
                yield (
                    PEOPLE[voter],
                    ApproveProposalRequest(approval_id=qualified(flow, event_id), digest=proposal.digest),
                )
        for escalation in flow.escalations.values():
            choice = self.chance.choice(escalation.choices)
            request = ResolveEscalationRequest(flow_id=self.flow_id, choice=choice, reason="as agreed")
            request.escalation_id = escalation.escalation_id
            yield PEOPLE["olga"], request
        if self.chance.random() < 0.2:
            yield from self._any(flow)

    def _any(self, flow: Flow) -> Iterator[tuple[Caller, Message]]:
        """What may count or not."""
        olga, flow_id = PEOPLE["olga"], self.flow_id
        yield olga, CancelFlowRequest(flow_id=flow_id, reason="no", keep_effects=self.chance.random() < 0.5)
        back = CompensateFlowRequest(flow_id=flow_id, reason="back", to_step=self.chance.choice(["", "enrich"]))
        back.run_again.extend(self.chance.choice([[], ["notify"]]))
        yield olga, back
        yield olga, MigrateFlowRequest(flow_id=flow_id, to_version=self.chance.choice([1, 2]), reason="newer")
        yield olga, RetryStepRequest(flow_id=flow_id, step="enrich", reason="again")
        yield olga, ResolveEscalationRequest(flow_id=flow_id, choice=Choice.CHOICE_RETRY, reason="why not")
        for event_id, proposal in flow.proposals.items():
            voter = PEOPLE[self.chance.choice(["anna", "ben", "vera"])]
            digest = self.chance.choice([proposal.digest, "0" * 64])
            yield (
                voter,
                self.chance.choice([ApproveProposalRequest, RejectProposalRequest])(
                    approval_id=qualified(flow, event_id), digest=digest
                ),
            )

    def _outcome(self, flow: Flow, step: str, root: str, run: int, attempt: int) -> tuple[Caller, Message]:
        return self._said(flow, step, root, run, attempt, ANSWERS[step]())

    def _failure(self, flow: Flow, step: str, root: str, run: int, attempt: int) -> tuple[Caller, Message]:
        failed = StepFailed(error_class="Broken", text="it broke", retryable=self.chance.random() < 0.5)
        return self._said(flow, step, root, run, attempt, failed)

    def _undone(self, flow: Flow, event_id: str, attempt: int) -> tuple[Caller, Message]:
        reversed_ = RefundReversed(chargeback_id="cb-1", transfer_id="t-1", reversal_id="r-1")
        return self._said(flow, "pay", event_id, 0, attempt, reversed_, undo_of=event_id)

    def _said(
        self, flow: Flow, step: str, root: str, run: int, attempt: int, message: Message, undo_of: str = ""
    ) -> tuple[Caller, Message]:
        agent = flow.template.steps[step].agent
        request = PublishEventRequest(
            flow_id=self.flow_id, flow_type="refund", step=step, root=root, run=run, attempt=attempt, output_total=1,
            data=pack(message), undo_of=undo_of,
        )  # fmt: skip
        return Caller(f"{agent}-robot", of_roles(()), agent=agent), request


def _answer_of(request: Message, answer: bytes) -> Any:
    from handrail.v1 import flow_service_pb2

    name = request.DESCRIPTOR.name.replace("Request", "Response")
    return getattr(flow_service_pb2, name).FromString(answer)


@pytest.mark.parametrize("seed", range(8))
async def test_a_call_that_comes_again_is_answered_as_it_was_and_done_once(seed: int) -> None:
    callers = Callers(seed)
    await callers.open()
    await callers.run()
    assert len(callers.answered) > CALLS / 4
    assert callers.refused


async def test_the_id_of_a_call_says_what_began() -> None:
    callers = Callers(0)
    await callers.open()
    _, request, _ = callers.answered[0]
    request_id = str(cast("StartFlowRequest", request).request_id)
    assert callers.flow_id == ids.flow_id_from_request("refund", "olga", request_id)
