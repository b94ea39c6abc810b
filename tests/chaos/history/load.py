"""The load: flows start at a steady rate, and people answer, cancel, compensate and resolve."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc.aio

from handrail.cli.verify import acknowledged
from handrail.cli.verify.waiting import FINAL
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import pack
from handrail.v1.approval_service_pb2 import (
    ApproveProposalRequest,
    ListApprovalsRequest,
    ListApprovalsResponse,
    RejectProposalRequest,
)
from handrail.v1.decision_pb2 import Choice
from handrail.v1.flow_service_pb2 import (
    Approval,
    CancelFlowRequest,
    CompensateFlowRequest,
    GetFlowRequest,
    ResolveEscalationRequest,
    StartFlowRequest,
    StartFlowResponse,
)
from payments.v1.payments_pb2 import ChargebackReceived
from tests.chaos.history.agents import chargeback
from tests.chaos.history.callers import Callers, Door, Options
from tests.chaos.history.site import Site
from tests.chaos.history.story import FLOW_TYPE, LARGE, SMALL, Lot, draw, lot_of

KEYED, TWICE, BY_AGENT = 0.6, 0.1, 0.05
"""Shares of flows: started by key; of those, on two coordinators at once; by an agent and a person at once."""

_APPROVALS, _ESCALATIONS = 2.0, 3.0
"""Seconds between two rounds of people."""

_LOOKS = 30
"""Flows that operators look at per round. They don't list by status, which would fold every flow."""

_PREFERRED = (Choice.CHOICE_RETRY, Choice.CHOICE_RESUME, Choice.CHOICE_EXTEND, Choice.CHOICE_COMPENSATE)
_SHOWN = 500


class Load:
    """The load described in the module. `lots` maps each started flow to its lot."""

    def __init__(self, site: Site, callers: Callers, chance: random.Random) -> None:
        self._site = site
        self._callers = callers
        self._chance = chance
        self._voted: set[tuple[str, str]] = set()
        self._open: set[str] = set()
        self._number = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self.lots: dict[str, Lot] = {}

    async def run(self, rate: float, stopping: asyncio.Event) -> None:
        """Starts `rate` flows per second until `stopping` is set, then waits for pending calls."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stopping.is_set():
            due = max(due + self._chance.expovariate(rate), loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = loop.create_task(self._one())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def people(self, stopping: asyncio.Event) -> None:
        """Runs the approvers and the operators."""
        await asyncio.gather(
            self._at_desk(self._answer, _APPROVALS, stopping), self._at_desk(self._resolve, _ESCALATIONS, stopping)
        )

    def know(self, flow_ids: Iterable[str]) -> None:
        """Flows that operators take care of, whoever started them."""
        self._open.update(flow_ids)

    async def _one(self) -> None:
        self._number += 1
        lot = draw(self._chance)
        name = f"{lot}-{self._number:06}"
        data = chargeback(name, LARGE if lot in (Lot.LARGE, Lot.REFUSED) else SMALL)
        flow_id = await self._begin(name, data)
        if not flow_id:
            return
        self.lots[flow_id] = lot
        self._open.add(flow_id)
        if lot is Lot.CANCEL:
            await asyncio.sleep(self._chance.choice((0, 0.05, 0.1, 0.2, 0.5, 3)) * self._chance.random())
            await self._cancel(flow_id)
        elif lot is Lot.BACK:
            await asyncio.sleep(self._chance.choice((0.1, 0.5, 4)) * self._chance.random())
            await self._compensate(flow_id)

    async def _begin(self, name: str, data: ChargebackReceived) -> str:
        fate = self._chance.random()
        if fate >= KEYED:
            request = StartFlowRequest(flow_type=FLOW_TYPE, data=pack(data), request_id=str(uuid.uuid4()))
            return await self._start(request)
        request = StartFlowRequest(flow_type=FLOW_TYPE, data=pack(data), key=name)
        told: Sequence[str]
        if fate < BY_AGENT:
            told = await asyncio.gather(self._start(request), self._start_by_agent(name, data))
        elif fate < BY_AGENT + TWICE:
            told = await asyncio.gather(*(self._start(request, door) for door in self._callers.doors()))
        else:
            told = [await self._start(request)]
        return next(filter(None, told), "")

    async def _start(self, request: StartFlowRequest, door: Door | None = None) -> str:
        def kept(answer: StartFlowResponse) -> Mapping[str, object]:
            return {"flow_id": answer.flow_id, "event_id": answer.event_id, "sequence": answer.sequence}

        answer = await self._callers.change(
            acknowledged.START, "kim", "operator", lambda at, how: at.flows.StartFlow(request, **how), kept,
            door=door, key=request.key, tries=6,
        )  # fmt: skip
        return answer.flow_id if answer is not None else ""

    async def _start_by_agent(self, name: str, data: ChargebackReceived) -> str:
        try:
            async with await NatsBus.connect(self._site.settings) as bus:
                template = await Catalog(bus).template(FLOW_TYPE, 1)
                started = await start_flow.start(bus, template, source="detection", data=pack(data), key=name)
        except HandrailError:
            return ""
        return started.flow_id

    async def _cancel(self, flow_id: str) -> None:
        request = CancelFlowRequest(flow_id=flow_id, reason="not wanted", request_id=str(uuid.uuid4()))
        await self._callers.change(
            acknowledged.CANCEL,
            "olga",
            "operator",
            lambda at, how: at.flows.CancelFlow(request, **how),
            flow_id=flow_id,
        )

    async def _compensate(self, flow_id: str) -> None:
        request = CompensateFlowRequest(flow_id=flow_id, reason="a mistake", request_id=str(uuid.uuid4()))
        await self._callers.change(
            acknowledged.COMPENSATE, "olga", "operator", lambda at, how: at.flows.CompensateFlow(request, **how),
            flow_id=flow_id,
        )  # fmt: skip

    async def _at_desk(self, look: Callable[[], Awaitable[None]], every: float, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await look()
            except grpc.aio.AioRpcError as error:
                self._callers.history.errors[f"look {error.code().name}"] += 1
            await asyncio.sleep(every)

    async def _answer(self) -> None:
        token = ""
        while True:
            page = await self._waiting(ListApprovalsRequest(scan=True, page_size=_SHOWN, page_token=token))
            await asyncio.gather(*map(self._vote, page.approvals))
            token = page.next_page_token
            if not token:
                return

    async def _waiting(self, request: ListApprovalsRequest) -> ListApprovalsResponse:
        return await self._callers.ask("anna", "finance", lambda at, how: at.approvals.ListApprovals(request, **how))

    async def _vote(self, approval: Approval) -> None:
        proposed = ChargebackReceived.FromString(approval.data.value)
        lot = lot_of(proposed.chargeback_id)
        for voter, yes in (("anna", True), ("ben", lot is not Lot.REFUSED)):
            if (approval.approval_id, voter) in self._voted:
                continue
            if await self._say(approval, voter, yes=yes):
                self._voted.add((approval.approval_id, voter))

    async def _say(self, approval: Approval, voter: str, *, yes: bool) -> bool:
        """Votes and returns whether it was acknowledged. If not, the vote is repeated in the next round."""
        seen: dict[str, Any] = {"approval_id": approval.approval_id, "digest": approval.digest}

        def call(at: Door, how: Options) -> Awaitable[object]:
            if yes:
                return at.approvals.ApproveProposal(ApproveProposalRequest(**seen), **how)
            return at.approvals.RejectProposal(RejectProposalRequest(**seen), **how)

        op = acknowledged.APPROVE if yes else acknowledged.REJECT
        told = await self._callers.change(
            op, voter, "finance", call, flow_id=approval.flow_id, subject=approval.approval_id, tries=2
        )
        return told is not None

    async def _resolve(self) -> None:
        looked_at = self._chance.sample(sorted(self._open), min(_LOOKS, len(self._open)))
        await asyncio.gather(*map(self._resolve_one, looked_at))

    async def _resolve_one(self, flow_id: str) -> None:
        asked = GetFlowRequest(flow_id=flow_id)
        flow = (await self._callers.ask("olga", "operator", lambda at, how: at.flows.GetFlow(asked, **how))).flow
        if flow.status in FINAL:
            self._open.discard(flow_id)
        for matter in flow.escalations:
            choice = next((each for each in _PREFERRED if each in matter.choices), matter.choices[0])
            await self._say_of(flow_id, matter.escalation_id, choice)

    async def _say_of(self, flow_id: str, matter: str, choice: Choice.ValueType) -> None:
        request = ResolveEscalationRequest(flow_id=flow_id, escalation_id=matter, choice=choice, reason="looked at")
        await self._callers.change(
            acknowledged.RESOLVE, "olga", "operator", lambda at, how: at.flows.ResolveEscalation(request, **how),
            flow_id=flow_id, subject=matter, tries=2,
        )  # fmt: skip
