"""The access table, walked with real calls: every RPC, with every role, on its own flow type, on another, on all.

Two flow types are alike: a flow that waits for approval, a template, a quarantined message. What a caller may not read
has to look exactly like what does not exist, and what is refused leaves the streams as they were.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from handrail.coordinator.api.access import ACCESS, Access, Scope
from handrail.coordinator.decide import operator_requests, two_persons
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import ANY_APPROVER, APPROVER, READER, ROLES
from handrail.mesh.bus import NatsBus
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry, pack, timestamp
from handrail.mesh.wire.subjects import Kind, quarantine_subject
from handrail.v1 import act_service_pb2 as act_pb
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import delegation_service_pb2 as delegations
from handrail.v1 import flow_service_pb2 as flow_pb
from handrail.v1 import identity_service_pb2 as identity
from handrail.v1 import quarantine_service_pb2 as quarantine_pb
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.act_pb2 import Act
from handrail.v1.decision_pb2 import ActWithdrawn, ApprovalRequested, Choice
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.template_pb2 import FlowTemplate
from tests.support import flows
from tests.support.api import Api, Refusal, bearer, running_api
from tests.support.mesh import Mesh, publish

OURS, THEIRS = "refund", "audit"
"""The flow type that is asked for, and the other one."""

SERVICES = [
    service
    for module in (
        approvals,
        delegations,
        flow_pb,
        act_pb,
        identity,
        quarantine_pb,
        templates,
        health_pb2,
        reflection_pb2,
        channelz_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]
KEEPER = "enrichment"
"""The agent whose quarantine holds a message of each flow type."""

METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
WALKED = sorted(path for path in METHODS if path.startswith("/handrail.v1."))
HELD = (*ROLES, f"{APPROVER}finance")
ABSENT = "e" * 32


@dataclass(frozen=True)
class Target:
    """What there is of a flow type, by the ids that requests name."""

    flow_type: str
    flow_id: str
    approval_id: str
    act_id: str
    quarantine_id: int
    version: int = 1


@dataclass(frozen=True)
class Walk:
    """A server with two flow types."""

    api: Api
    ours: Target
    theirs: Target

    async def call(self, method: str, request: Message, *grants: str, agent: str = "") -> Message | Refusal:
        """Calls with these grants and nothing else; the first answer, or the refusal."""
        token = self.api.token("kim", grants=grants, agent=agent)
        descriptor = METHODS[method]
        make = self.api.channel.unary_stream if descriptor.server_streaming else self.api.channel.unary_unary
        answer: Any = GetMessageClass(descriptor.output_type)
        rpc: Any = make(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        call = rpc(request, metadata=bearer(token))
        try:
            first: Message = await (call.read() if descriptor.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)  # type: ignore[arg-type]
            return Refusal(error.code(), status or Status())
        call.cancel()
        return first

    async def stored(self) -> int:
        """How many messages the streams hold."""
        bus = self.api.replica.bus
        names = ("FLOW", "TEMPLATE", f"QUARANTINE_{KEEPER}", "KEY", "TIMER")
        infos = [await bus.request_json(f"$JS.API.STREAM.INFO.{name}") for name in names]
        return sum(int(info["state"]["last_seq"]) for info in infos)


@pytest.fixture
async def walk(bus: NatsBus, tmp_path: Any) -> AsyncIterator[Walk]:
    """Nobody decides: the approvals keep waiting."""
    async with running_api(bus, tmp_path, decides=False) as api:
        mesh = Mesh(bus, api.replica.catalog)
        await mesh.put(*(stored_template(name) for name in (OURS, THEIRS)))
        yield Walk(api, await target(mesh, OURS, "a" * 32), await target(mesh, THEIRS, "b" * 32))


def stored_template(flow_type: str, version: int = 1) -> Template:
    """A template with a gate, whose flows nobody cancels alone."""
    template = flows.template(flow_type, version, gated=True)
    proto = FlowTemplate(require_two=[Act.ACT_CANCEL])
    proto.MergeFrom(template.proto)
    return Template.compile(proto, template.contracts)


async def target(mesh: Mesh, flow_type: str, flow_id: str) -> Target:
    """A flow that waits for approval, an act in it that was withdrawn, and a quarantined message."""
    proposal = flows.enriched(flow_id, flow_type=flow_type, kind=Kind.PROPOSAL)
    last = await publish(mesh.bus, flows.start(flow_id, flow_type=flow_type), proposal)
    flow = await mesh.store.load(flow_type, flow_id, at_least=last)
    (asked,) = flow.proposals.values()
    request = ApprovalRequested(proposal_id=asked.recorded.event_id, digest=asked.digest)
    entry = flows.decision(request, flow_id=flow_id, flow_type=flow_type, about="x", based_on=flow.last_sequence)
    await mesh.store.append(flow, entry)
    flow = await mesh.store.load(flow_type, flow_id, at_least=last + 1)
    asked_for = two_persons.requested(flow, operator_requests.cancelling(flow, Caller("lou")), datetime.now(UTC))
    assert isinstance(asked_for, Entry)
    flow = await mesh.store.load(flow_type, flow_id, at_least=(await mesh.store.append(flow, asked_for)).sequence)
    withdrawn = ActWithdrawn(act_id=asked_for.event.event_id, by="lou")
    entry = flows.decision(withdrawn, flow_id=flow_id, flow_type=flow_type, about="x", based_on=flow.last_sequence)
    await mesh.store.append(flow, entry)
    record = Quarantined(detail="broken", body=b"\xff").SerializeToString()
    subject = quarantine_subject(flow_type, flow_id, KEEPER, KEEPER, "c" * 32)
    kept = await mesh.bus.publish(subject, record)
    part = f"{flow_type}.{flow_id}."
    return Target(flow_type, flow_id, part + asked.recorded.event_id, part + asked_for.event.event_id, kept)


Make = Callable[[Target], Message]
WRONG = "f" * 64
STALE: dict[str, Any] = {"reason": "a test", "etag": "stale"}
"""The flow refuses such requests without a change, once the caller is let in."""


def _template(to: Target) -> dict[str, Any]:
    template = stored_template(to.flow_type, to.version)
    return {"template": template.proto, "descriptors": template.descriptor_set}


REQUESTS: Mapping[str, Make] = {
    "StartFlow": lambda to: flow_pb.StartFlowRequest(flow_type=to.flow_type, data=pack(flows.told())),
    "PublishEvent": lambda to: flow_pb.PublishEventRequest(
        flow_id=to.flow_id, flow_type=to.flow_type, step="none", root="d" * 32, attempt=1, output_total=1,
        data=pack(flows.told()),
    ),
    "GetFlow": lambda to: flow_pb.GetFlowRequest(flow_id=to.flow_id),
    "ListFlowEvents": lambda to: flow_pb.ListFlowEventsRequest(flow_id=to.flow_id),
    "WatchFlow": lambda to: flow_pb.WatchFlowRequest(flow_id=to.flow_id),
    "ListFlows": lambda to: flow_pb.ListFlowsRequest(scan=True),
    "CountFlows": lambda to: flow_pb.CountFlowsRequest(),
    "CountFlowsByHour": lambda to: flow_pb.CountFlowsByHourRequest(),
    "ListDivergences": lambda to: flow_pb.ListDivergencesRequest(scan=True),
    "ListFailures": lambda to: flow_pb.ListFailuresRequest(),
    "PlanCompensation": lambda to: flow_pb.PlanCompensationRequest(flow_id=to.flow_id),
    "CompensateFlow": lambda to: flow_pb.CompensateFlowRequest(flow_id=to.flow_id, **STALE),
    "CancelFlow": lambda to: flow_pb.CancelFlowRequest(flow_id=to.flow_id, **STALE),
    "RetryStep": lambda to: flow_pb.RetryStepRequest(flow_id=to.flow_id, step="enrich", **STALE),
    "PlanMigration": lambda to: flow_pb.PlanMigrationRequest(scan=True, flow_type=to.flow_type, to_version=to.version),
    "MigrateFlow": lambda to: flow_pb.MigrateFlowRequest(flow_id=to.flow_id, to_version=1, **STALE),
    "ResolveEscalation": lambda to: flow_pb.ResolveEscalationRequest(
        flow_id=to.flow_id, choice=Choice.CHOICE_RETRY, **STALE
    ),
    "ListApprovals": lambda to: approvals.ListApprovalsRequest(scan=True),
    "GetApproval": lambda to: approvals.GetApprovalRequest(approval_id=to.approval_id),
    "ApproveProposal": lambda to: approvals.ApproveProposalRequest(approval_id=to.approval_id, digest=WRONG),
    "RejectProposal": lambda to: approvals.RejectProposalRequest(approval_id=to.approval_id, digest=WRONG),
    "ReassignApproval": lambda to: approvals.ReassignApprovalRequest(
        approval_id=to.approval_id, digest=WRONG, roles=["other"]
    ),
    "Delegate": lambda to: delegations.DelegateRequest(
        delegate="dora", role="finance", flow_type=to.flow_type, end_time=timestamp(datetime(2026, 1, 1, tzinfo=UTC))
    ),
    "EndDelegation": lambda to: delegations.EndDelegationRequest(delegation_id=ABSENT),
    "ListDelegations": lambda to: delegations.ListDelegationsRequest(),
    "ListActs": lambda to: act_pb.ListActsRequest(include_closed=True),
    "GetAct": lambda to: act_pb.GetActRequest(act_id=to.act_id),
    "ConfirmAct": lambda to: act_pb.ConfirmActRequest(act_id=to.act_id, digest=WRONG),
    "WithdrawAct": lambda to: act_pb.WithdrawActRequest(act_id=to.act_id, reason="a test"),
    "GetPolicy": lambda to: act_pb.GetPolicyRequest(),
    "SetPolicy": lambda to: act_pb.SetPolicyRequest(reason="as it is"),
    "CheckTemplate": lambda to: templates.CheckTemplateRequest(**_template(to)),
    "PutTemplate": lambda to: templates.PutTemplateRequest(**_template(to)),
    "ActivateTemplate": lambda to: templates.ActivateTemplateRequest(
        name=to.flow_type, version=to.version, reason="a test", force=True
    ),
    "GetTemplate": lambda to: templates.GetTemplateRequest(name=to.flow_type, version=to.version),
    "ListTemplates": lambda to: templates.ListTemplatesRequest(),
    "ReplayPolicy": lambda to: templates.ReplayPolicyRequest(**_template(to)),
    "ListActivations": lambda to: templates.ListActivationsRequest(name=to.flow_type),
    "GetTemplateUsage": lambda to: templates.GetTemplateUsageRequest(scan=True),
    "WhoAmI": lambda to: identity.WhoAmIRequest(),
    "ListQuarantined": lambda to: quarantine_pb.ListQuarantinedRequest(),
    "GetQuarantined": lambda to: quarantine_pb.GetQuarantinedRequest(agent=KEEPER, quarantine_id=to.quarantine_id),
}  # fmt: skip


def request_to(method: str, to: Target) -> Message:
    return REQUESTS[method.rpartition("/")[2]](to)


def suffices(role: str, access: Access) -> bool:
    """Whether the row asks for this role, or for one that it implies."""
    return bool({role, READER, ANY_APPROVER if role.startswith(APPROVER) else ""} & set(access.roles))


LET_IN = {
    "NO_INDEX",
    "DELEGATION_REFUSED",
    "ETAG_MISMATCH",
    "ACT_CLOSED",
    "DIGEST_MISMATCH",
    "TEMPLATE_REFUSED",
    "UNKNOWN_MESSAGE_TYPE",
}
"""What a caller hears who was let in: the walk asks for nothing that would change something."""


def verdict(answer: Message | Refusal) -> str:
    """The reason of a refusal; `passed` if the caller was let in, whatever the flow made of the request."""
    if not isinstance(answer, Refusal):
        return "passed"
    return "passed" if answer.reason in LET_IN else answer.reason


NOT_FOUND = {
    "act_id": "ACT_NOT_FOUND",
    "approval_id": "APPROVAL_NOT_FOUND",
    "quarantine_id": "QUARANTINE_NOT_FOUND",
    "flow_id": "FLOW_NOT_FOUND",
    "name": "TEMPLATE_NOT_FOUND",
    "to_version": "TEMPLATE_NOT_FOUND",
    "flow_type": "FLOW_TYPE_NOT_FOUND",
}


def missing_reason(request: Message) -> str:
    """How a request for something that does not exist is answered, by the field that names it."""
    fields = {field.name for field, _ in request.ListFields()}
    return next(reason for field, reason in NOT_FOUND.items() if field in fields)


@pytest.mark.parametrize("role", HELD)
async def test_each_role_does_what_the_table_says_and_no_more(walk: Walk, role: str) -> None:
    before = await walk.stored()
    for method in WALKED:
        access = ACCESS[method]
        if access.agent or access.anybody:
            continue
        request = request_to(method, walk.ours)
        for scope in (OURS, THEIRS, "*"):
            answer = await walk.call(method, request, f"{role}@{scope}")
            expected = "passed"
            narrow = access.scope is Scope.INSTALLATION and scope != "*"
            if not suffices(role, access) or narrow or (scope == THEIRS and access.scope is Scope.GIVEN):
                expected = "MISSING_ROLE"
            elif scope == THEIRS and access.scope is not Scope.LISTED:
                expected = missing_reason(request)
            assert verdict(answer) == expected, f"{method} with {role}@{scope}: {answer}"
            if access.scope is Scope.LISTED and expected == "passed" and not isinstance(answer, Refusal):
                hidden = OURS if scope == THEIRS else THEIRS
                assert scope == "*" or f'"{hidden}"' not in str(answer), f"{method} with {role}@{scope}"
                assert scope == "*" or f".{hidden}." not in str(answer), f"{method} with {role}@{scope}"
                shown = {OURS, THEIRS} if scope == "*" else {scope}
                if method.endswith(("ListFlows", "ListApprovals", "ListActs", "ListTemplates", "ListQuarantined")):
                    assert {each for each in (OURS, THEIRS) if f'"{each}"' in str(answer)} == shown
    assert await walk.stored() == before, "a call that was refused, or asked for nothing new, has been recorded"


def told(refusal: Message | Refusal, to: Target) -> tuple[object, ...]:
    """What a caller is told, without the ids that the caller has named."""
    assert isinstance(refusal, Refusal), f"not refused: {refusal}"
    text = refusal.status.message
    for named in (to.approval_id, to.act_id, to.flow_type, to.flow_id, f"message {KEEPER}/{to.quarantine_id}"):
        text = text.replace(named, "…")
    return refusal.code, refusal.reason, text, sorted(refusal.info.metadata), len(refusal.status.details)


@pytest.mark.parametrize("method", [path for path in WALKED if ACCESS[path].scope in (Scope.FLOW, Scope.NAMED)])
async def test_what_may_not_be_read_looks_like_what_does_not_exist(walk: Walk, method: str) -> None:
    part = f"absence.{ABSENT}.{ABSENT}"
    absent = Target("absence", ABSENT, part, part, 99)
    everything_else = [f"{role}@{THEIRS}" for role in HELD]
    hidden = await walk.call(method, request_to(method, walk.ours), *everything_else)
    unknown = await walk.call(method, request_to(method, absent), *everything_else)
    assert told(hidden, walk.ours) == told(unknown, absent)


@pytest.mark.parametrize("method", [path for path in WALKED if ACCESS[path].scope in (Scope.FLOW, Scope.NAMED)])
async def test_who_may_read_and_not_change_is_told_which_grant_is_missing(walk: Walk, method: str) -> None:
    answer = await walk.call(method, request_to(method, walk.ours), f"reader@{OURS}", *(f"{r}@{THEIRS}" for r in HELD))
    if READER in ACCESS[method].roles:
        assert not isinstance(answer, Refusal)
        return
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_ROLE")
    assert f"{ACCESS[method].roles[0]}@{OURS}" in answer.status.message


@pytest.mark.parametrize("method", [path for path in WALKED if not ACCESS[path].anybody])
async def test_who_holds_nothing_is_refused_before_the_request_is_looked_at(walk: Walk, method: str) -> None:
    empty = GetMessageClass(METHODS[method].input_type)()
    answer = await walk.call(method, empty)
    assert isinstance(answer, Refusal)
    assert answer.reason == "MISSING_ROLE"


async def test_an_agent_publishes_where_it_has_a_step_and_elsewhere_finds_nothing(walk: Walk) -> None:
    method = "/handrail.v1.FlowService/PublishEvent"
    request, absent = (request_to(method, to) for to in (walk.ours, Target(OURS, ABSENT, ABSENT, ABSENT, 0)))
    assert verdict(await walk.call(method, request, "operator@*")) == "MISSING_ROLE"
    assert verdict(await walk.call(method, request, agent="enrichment")) == "STEP_NOT_FOUND"
    assert verdict(await walk.call(method, request, f"reader@{OURS}", agent="stranger")) == "STEP_NOT_FOUND"
    hidden = await walk.call(method, request, agent="stranger")
    assert verdict(hidden) == "FLOW_NOT_FOUND"
    unknown = await walk.call(method, absent, agent="stranger")
    assert told(hidden, walk.ours) == told(unknown, Target(OURS, ABSENT, ABSENT, ABSENT, 0))


@pytest.mark.parametrize("grant, let_in", [("operator@*", True), (f"operator@{OURS}", False), ("reader@*", False)])
async def test_channelz_shows_the_whole_installation_and_needs_a_grant_on_it(
    walk: Walk, grant: str, let_in: bool
) -> None:
    answer = await walk.call("/grpc.channelz.v1.Channelz/GetServers", channelz_pb2.GetServersRequest(), grant)
    assert (verdict(answer) == "passed") == let_in


def test_every_rpc_that_is_served_has_a_row_and_every_row_is_of_one() -> None:
    alpha = {path.replace(".v1alpha.", ".v1.") for path in METHODS if "reflection" in path}
    assert set(ACCESS) == set(METHODS) | alpha


def test_the_walk_knows_how_to_call_every_rpc() -> None:
    assert {path.rpartition("/")[2] for path in WALKED} == set(REQUESTS)
