"""One person does what takes two: removes a gate from a flow that waits, or from the flows that begin."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from handrail.mesh.template import APPROVAL_REFUSED
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.act_pb2 import Act, PendingAct
from handrail.v1.act_service_pb2_grpc import ActServiceStub
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.attacks.people import reason_of

NAMES = ("mallory", "MALLORY", " mallory", "mal\u200blory")
"""One person, as he may write his name."""


class Mallory:
    """One operator, with every role that there is but `breakglass`, and every spelling of his name."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self.flows = FlowServiceStub(channels[0])
        self.templates = TemplateServiceStub(channels[0])
        self.acts = [ActServiceStub(channel) for channel in channels]
        self.told: list[str] = []

    async def put(self, name: str, version: int, *, require_two: Sequence[Act.ValueType] = ()) -> None:
        """Stores the demo's template under another name; from version 2 on it has no gate."""
        stored = (await self.templates.GetTemplate(templates.GetTemplateRequest(name="refund", version=1))).stored
        proto = stored.template
        proto.name, proto.version = name, version
        proto.require_two.extend(require_two)
        for step in proto.steps:
            step.agent = f"nobody-{step.agent}"
            if version > 1 and APPROVAL_REFUSED in step.after:
                step.after.remove(APPROVAL_REFUSED)
        if version > 1:
            del proto.gates[:]
        await self.templates.PutTemplate(templates.PutTemplateRequest(template=proto, descriptors=stored.descriptors))

    async def confirm_alone(self, act: PendingAct) -> None:
        """Confirms what he asked for, under each spelling of his name, and by breaking a glass that is not his."""
        for stub in self.acts:
            await self._try(stub.ConfirmAct(acts.ConfirmActRequest(act_id=act.act_id, digest=act.digest)))
        request = acts.ConfirmActRequest(act_id=act.act_id, digest=act.digest, break_glass_reason="because")
        await self._try(self.acts[0].ConfirmAct(request))

    async def _try(self, call: Awaitable[Any]) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            self.told.append(reason_of(error))
        else:
            succeeded("he confirmed it himself")


@asynccontextmanager
async def mallory(target: Installation) -> AsyncIterator[Mallory]:
    """Mallory, as this installation knows him."""
    channels = [target.channel(target.token(name, "operator")) for name in NAMES]
    try:
        yield Mallory(channels)
    finally:
        for channel in channels:
            await channel.close(None)


@attack(
    "27",
    "one operator removes the gate: a version without it, and the flow is moved there",
    mutant=("p6_one_person_is_two", "p6_a_move_is_a_way_around_two_persons", "p6_an_act_is_recorded_without_asking"),
)
async def remove_the_gate(target: Installation) -> str:
    name = f"guarded-{uuid.uuid4().hex[:8]}"
    async with mallory(target) as he:
        await he.put(name, 1, require_two=[Act.ACT_CANCEL])
        await he.put(name, 2)
        await he.templates.ActivateTemplate(templates.ActivateTemplateRequest(name=name, version=1, reason="x"))
        start = flows.StartFlowRequest(flow_type=name)
        start.data.Pack(target.claim(LARGE))
        flow_id = (await he.flows.StartFlow(start)).flow_id
        request = flows.MigrateFlowRequest(flow_id=flow_id, to_version=2, reason="no gate there")
        await he.confirm_alone((await he.flows.MigrateFlow(request)).pending_act)
        cancel = flows.CancelFlowRequest(flow_id=flow_id, reason="and gone")
        await he.confirm_alone((await he.flows.CancelFlow(cancel)).pending_act)
        flow = (await he.flows.GetFlow(flows.GetFlowRequest(flow_id=flow_id))).flow
        moved = flow.template_version != 1 or flow.halt_mode
        return refused(f"it stays at version 1; he is told: {he.told[0]}; {he.told[-1]}", unless=moved)


@attack(
    "28",
    "one operator activates a version that one vote of his own passes, and takes back the policy against it",
    fresh=True,
    mutant="p6_one_person_activates",
)
async def lower_the_gate(target: Installation) -> str:
    async with mallory(target) as he:
        policy = acts.SetPolicyRequest(require_two=[Act.ACT_ACTIVATE], reason="agreed")
        await he.acts[0].SetPolicy(policy)
        stored = (await he.templates.GetTemplate(templates.GetTemplateRequest(name="refund", version=1))).stored
        stored.template.version = 2
        for gate in stored.template.gates:
            gate.approvers.quorum, gate.approvers.not_the_requester = 1, False
            gate.approvers.roles[:] = ["operator"]
        put = templates.PutTemplateRequest(template=stored.template, descriptors=stored.descriptors)
        await he.templates.PutTemplate(put)
        activate = templates.ActivateTemplateRequest(name="refund", version=2, reason="one vote", force=True)
        await he.confirm_alone((await he.templates.ActivateTemplate(activate)).pending_act)
        none = acts.SetPolicyRequest(reason="no policy, no second person")
        await he.confirm_alone((await he.acts[0].SetPolicy(none)).pending_act)
        active = (await he.templates.GetTemplate(templates.GetTemplateRequest(name="refund"))).stored.template.version
        return refused(f"version 1 stays active; he is told: {he.told[0]}; {he.told[-1]}", unless=active != 1)
