"""A caller does what no role of theirs allows: votes, compiles, looks into flow types that are not theirs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from grpc_status import rpc_status

from handrail.mesh.wire.envelope import pack
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import quarantine_service_pb2 as quarantine
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.act_service_pb2 import ListActsRequest
from handrail.v1.act_service_pb2_grpc import ActServiceStub
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import Choice
from handrail.v1.delegation_service_pb2 import DelegateRequest
from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub
from handrail.v1.template_pb2 import FlowTemplate, Gate
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support import forged
from tests.support.api import bearer
from tests.support.people import People, name_of
from tests.support.waiting import eventually

VOTES = 50
"""How many votes a caller tries."""

QUICK = 1.0
"""Seconds within which a caller without a role is refused, whatever the request would cost."""

WRONG = "0" * 64


async def reasons(calls: Iterable[Awaitable[object]]) -> Counter[str]:
    """How often the calls were answered (`OK`), or refused for which reason."""
    return Counter(await asyncio.gather(*(reason(call) for call in calls)))


async def reason(call: Awaitable[object]) -> str:
    """`OK`, or the code and text of a refusal up to its first colon or semicolon."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        text = status.message if status else error.details() or ""
        return f"{error.code().name} {text}"
    return "OK"


async def vote_in_vain(target: Installation, people: People, approval: flows.Approval, token: str, digest: str) -> str:
    """Votes often; raises Succeeded if the flow has more messages afterwards, or if a vote is taken."""
    before = (await people.flow(approval.flow_id)).message_count
    request = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=digest)
    told = await reasons(people.approvals.ApproveProposal(request, metadata=bearer(token)) for _ in range(VOTES))
    after = (await people.flow(approval.flow_id)).message_count
    if "OK" in told or after != before:
        succeeded(f"{before} -> {after} messages after {VOTES} votes: {dict(told)}")
    return f"{VOTES} votes, {before} messages before and after: {', '.join(told)}"


async def waiting(target: Installation, people: People) -> flows.Approval:
    """The approval of a new flow."""
    return await people.approval(await target.flow_from_start(people, LARGE))


VOTERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "26": ("who holds no role votes with a wrong digest", {}, WRONG),
    "26b": ("who approves another flow type votes", {"handrail": ["approver.finance@loan", "reader@refund"]}, ""),
    "26c": ("who approves in another role votes", {"handrail": ["approver.legal@refund"]}, ""),
    "26d": ("an approver votes with a wrong digest", {"handrail": ["approver.finance@refund"]}, WRONG),
    "26e": ("an operator without an approver's role votes", {"handrail": ["operator@refund"]}, ""),
}


def voting(claims: dict[str, Any], digest: str) -> Callable[[Installation], Awaitable[str]]:
    """Votes in vain with these claims."""

    async def attempt(target: Installation) -> str:
        async with target.people() as people:
            approval = await waiting(target, people)
            token = target.token("mallory", **claims)
            return await vote_in_vain(target, people, approval, token, digest or approval.digest)

    return attempt


for id_, (title_, claims_, digest_) in VOTERS.items():
    guards = ("p6_what_can_not_count_is_recorded", "p6_a_vote_has_the_roles_of_other_flow_types")
    attack(id_, f"{title_}, {VOTES} times", mutant=guards)(voting(claims_, digest_))


@attack("36", "refused votes fill a flow until nobody can approve", mutant="p6_what_can_not_count_is_recorded")
async def fill_a_flow(target: Installation) -> str:
    async with target.people() as people:
        approval = await waiting(target, people)
        tries: list[dict[str, Any]] = [{}, {"handrail": ["approver.finance@refund"]}]
        for claims in tries:
            for _ in range(4):
                await vote_in_vain(target, people, approval, target.token("mallory", **claims), WRONG)
        for name in ("anna", "ben"):
            await people.approve(approval, by=name)
        flow = await people.until_status(approval.flow_id, "COMPLETED")
        return f"after {8 * VOTES} votes in vain anna and ben approved: {name_of(flow.status)}, {flow.message_count}"


@attack("56", f"{VOTES} votes on an approval that is closed", mutant="p6_what_can_not_count_is_recorded")
async def vote_on_what_is_closed(target: Installation) -> str:
    async with target.people() as people:
        approval = await waiting(target, people)
        for name in ("anna", "ben"):
            await people.approve(approval, by=name)
        await people.until_status(approval.flow_id, "COMPLETED")
        token = target.token("carl", handrail=["approver.finance@refund"])
        return await vote_in_vain(target, people, approval, token, approval.digest)


@attack("33", "who may not store templates has one checked that is costly", mutant="p6_work_before_roles")
async def costly_check(target: Installation) -> str:
    gate = Gate(name="g", on="payments.v1.LargeRefundGranted", when="(" * 200 + "true" + ")" * 200)
    costly = FlowTemplate(name="refund", version=99, gates=[gate] * 64)
    request = templates.CheckTemplateRequest(template=costly, descriptors=b"\x0a\x00" * 400_000)
    told = []
    tries: list[dict[str, Any]] = [
        {"roles": ["finance"]},
        {"handrail": ["operator@refund"]},
        {"handrail": ["template_admin@loan"]},
    ]
    for claims in tries:
        async with target.channel() as channel:
            stub = TemplateServiceStub(channel)
            began = time.monotonic()
            said = await reason(stub.CheckTemplate(request, metadata=bearer(target.token("mallory", **claims))))
            took = time.monotonic() - began
        if not said.startswith("PERMISSION_DENIED") or took > QUICK:
            succeeded(f"{claims}: {took:.2f} s: {said}")
        told.append(f"{took:.2f} s")
    return f"PERMISSION_DENIED after {', '.join(told)}"


def reads(people: People, flow_id: str, approval_id: str) -> dict[str, Callable[[Any], Awaitable[object]]]:
    """Each way to read something of a flow, or to change it, by name."""
    channel = people.api.channel
    flow, approval = FlowServiceStub(channel), ApprovalServiceStub(channel)
    template, kept = TemplateServiceStub(channel), QuarantineServiceStub(channel)
    act: dict[str, Any] = {"flow_id": flow_id, "reason": "an attack"}
    vote: dict[str, Any] = {"approval_id": approval_id, "digest": WRONG}
    return {
        "GetFlow": lambda token: flow.GetFlow(flows.GetFlowRequest(flow_id=flow_id), metadata=token),
        "ListFlowEvents": lambda token: flow.ListFlowEvents(
            flows.ListFlowEventsRequest(flow_id=flow_id), metadata=token
        ),
        "WatchFlow": lambda token: flow.WatchFlow(flows.WatchFlowRequest(flow_id=flow_id), metadata=token).read(),
        "PlanCompensation": lambda token: flow.PlanCompensation(
            flows.PlanCompensationRequest(flow_id=flow_id), metadata=token
        ),
        "CompensateFlow": lambda token: flow.CompensateFlow(flows.CompensateFlowRequest(**act), metadata=token),
        "CancelFlow": lambda token: flow.CancelFlow(flows.CancelFlowRequest(**act), metadata=token),
        "RetryStep": lambda token: flow.RetryStep(flows.RetryStepRequest(step="pay", **act), metadata=token),
        "MigrateFlow": lambda token: flow.MigrateFlow(flows.MigrateFlowRequest(to_version=1, **act), metadata=token),
        "ResolveEscalation": lambda token: flow.ResolveEscalation(
            flows.ResolveEscalationRequest(choice=Choice.CHOICE_RETRY, **act), metadata=token
        ),
        "GetApproval": lambda token: approval.GetApproval(
            approvals.GetApprovalRequest(approval_id=approval_id), metadata=token
        ),
        "ApproveProposal": lambda token: approval.ApproveProposal(
            approvals.ApproveProposalRequest(**vote), metadata=token
        ),
        "GetTemplate": lambda token: template.GetTemplate(
            templates.GetTemplateRequest(name="refund"), metadata=token
        ),
        "ListActivations": lambda token: template.ListActivations(
            templates.ListActivationsRequest(name="refund"), metadata=token
        ),
        "GetQuarantined": lambda token: kept.GetQuarantined(
            quarantine.GetQuarantinedRequest(quarantine_id=1), metadata=token
        ),
        "StartFlow": lambda token: flow.StartFlow(
            flows.StartFlowRequest(flow_type="refund", data=pack(flows.FlowDivergence())), metadata=token
        ),
    }  # fmt: skip


ELSEWHERE = [f"{role}@loan" for role in ("operator", "approver.finance", "template_admin", "quarantine_reader")]


@attack(
    "26f", "who has every role on another flow type reads or changes a flow",
    mutant="p6_what_is_hidden_is_told_from_what_is_missing",
)  # fmt: skip
async def look_into_another_type(target: Installation) -> str:
    async with target.people() as people:
        approval = await waiting(target, people)
        token = bearer(target.token("mallory", handrail=ELSEWHERE))
        before = (await people.flow(approval.flow_id)).message_count
        calls = reads(people, approval.flow_id, approval.approval_id)
        told = {name: await reason(call(token)) for name, call in calls.items()}
        missing = f"loan.{'f' * 32}.{'f' * 32}"
        absent = {name: await reason(call(token)) for name, call in reads(people, "f" * 32, missing).items()}
        named = {name: said.replace("f" * 32, approval.flow_id) for name, said in absent.items()}
        named |= {
            name: absent[name].replace(missing, approval.approval_id) for name in ("GetApproval", "ApproveProposal")
        }
        differ = {name: (said, named[name]) for name, said in told.items() if said != named[name]}
        let_in = {name: said for name, said in told.items() if not said.startswith("NOT_FOUND")}
        if differ or let_in or (await people.flow(approval.flow_id)).message_count != before:
            succeeded(f"{differ} {let_in}")
        return f"{len(told)} RPCs answer NOT_FOUND, with the text for a flow that does not exist"


def scanned_or_not(people: People, token: Sequence[tuple[str, str]], *, scan: bool) -> list[Awaitable[object]]:
    """The lists that are read from the index, or by a scan."""
    template = TemplateServiceStub(people.api.channel)
    closed = approvals.ListApprovalsRequest(include_closed=True, scan=scan)
    return [
        people.flows.ListFlows(flows.ListFlowsRequest(scan=scan), metadata=token),
        people.flows.ListFlows(flows.ListFlowsRequest(flow_type="refund", scan=scan), metadata=token),
        people.flows.ListDivergences(flows.ListDivergencesRequest(count_only=True, scan=scan), metadata=token),
        people.approvals.ListApprovals(closed, metadata=token),
        template.GetTemplateUsage(templates.GetTemplateUsageRequest(scan=scan), metadata=token),
    ]


@attack("26g", "who reads another flow type finds a flow in a list", mutant="p6_a_list_shows_every_flow_type")
async def list_another_type(target: Installation) -> str:
    async with target.people() as people:
        await waiting(target, people)
        token = bearer(target.token("mallory", handrail=ELSEWHERE))
        template = TemplateServiceStub(people.api.channel)
        lists: list[Awaitable[object]] = [
            *scanned_or_not(people, token, scan=True),
            *scanned_or_not(people, token, scan=False),
            people.flows.ListFlows(flows.ListFlowsRequest(filter="NOT flow_type = x"), metadata=token),
            ActServiceStub(people.api.channel).ListActs(ListActsRequest(include_closed=True), metadata=token),
            people.flows.ListFailures(flows.ListFailuresRequest(), metadata=token),
            people.quarantine.ListQuarantined(quarantine.ListQuarantinedRequest(), metadata=token),
            template.ListTemplates(templates.ListTemplatesRequest(), metadata=token),
        ]
        shown = [answer for answer in await asyncio.gather(*lists) if "refund" in str(answer)]
        return refused(f"{len(lists)} lists leave it out", unless=shown)


@attack(
    "76",
    "a token speaks for an agent whose name is a user of the broker's",
    mutant="p6_a_token_speaks_for_a_broker_user",
)
async def reserved_agents(target: Installation) -> str:
    async with target.people() as people:
        told = await reasons(
            people.flows.ListFlows(flows.ListFlowsRequest(), metadata=bearer(target.token("mallory", agent=name)))
            for name in ("admin", "viewer", "coordinator")
        )
        if any(not said.startswith("UNAUTHENTICATED") for said in told):
            succeeded(f"{dict(told)}")
        return ", ".join(told)


@attack(
    "25b", "who asked for a refund has two colleagues give both votes with roles that were passed on to them",
    mutant=("p6_delegate_and_delegator_are_two", "p6_the_requester_votes"),
)  # fmt: skip
async def borrowed_votes(target: Installation) -> str:
    async with target.people() as people:
        approval = await waiting(target, people)  # asked for by olga
        stub = DelegationServiceStub(people.api.channel)
        for name in ("olga", "anna"):
            token = bearer(target.token(name, handrail=["approver.finance@refund"]))
            for delegate in ("dora", "erik"):
                request = DelegateRequest(delegate=delegate, role="finance", flow_type="refund", reason="an attack")
                request.end_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
                await stub.Delegate(request, metadata=token)
        vote = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        told = []
        for name in ("dora", "erik", "anna"):
            grant = "approver.finance@refund" if name == "anna" else "reader@refund"
            token = bearer(target.token(name, handrail=[grant]))
            told.append(f"{name}: {await reason(people.approvals.ApproveProposal(vote, metadata=token))}")
        status = name_of((await people.flow(approval.flow_id)).status)
        if status != "WAITING_APPROVAL" or sum(said.endswith(": OK") for said in told) > 1:
            succeeded(f"{status}: {told}")
        return "; ".join(told)


async def proposed_by_call(target: Installation, people: People, name: str) -> flows.Approval:
    """An approval of what this person proposed in the name of the agent refunds, which has to be silenced."""
    claim = target.claim(LARGE)
    flow_id = (await people.start(claim)).flow_id
    await eventually(lambda: people.events(flow_id), lambda found: len(found) == 2)
    granted = forged.large(LARGE, chargeback=claim.chargeback_id)
    request = flows.PublishEventRequest(
        flow_id=flow_id, flow_type="refund", step="grant", root=forged.enriched_id(flow_id), attempt=1,
        output_total=1, data=pack(granted),
    )  # fmt: skip
    await people.flows.PublishEvent(request, metadata=bearer(target.token(name, agent="refunds")))
    return await people.approval(flow_id)


@attack("25", "who proposed through PublishEvent votes on it, with another token", mutant="p6_who_proposed_votes")
async def vote_on_own_proposal(target: Installation) -> str:
    # The agent itself would report a divergence meanwhile, which is a message of the flow.
    with target.silenced("refunds"):
        return await votes_of_the_proposer(target)


async def votes_of_the_proposer(target: Installation) -> str:
    """What the proposer is told, and another bearer for the same agent."""
    async with target.people() as people:
        approval = await proposed_by_call(target, people, "mallory")
        told = []
        for name in ("mallory", "Mallory "):
            token = target.token(name, handrail=["approver.finance@refund"])
            told.append(await vote_in_vain(target, people, approval, token, approval.digest))
        token = target.token("carl", agent="refunds", handrail=["approver.finance@refund"])
        told.append(await vote_in_vain(target, people, approval, token, approval.digest))
        return "; ".join(told)


@attack("55", "a person publishes for an agent, and the stream does not say who", mutant="p6_nobody_knows_who_proposed")
async def publish_unnamed(target: Installation) -> str:
    async with target.people() as people:
        with target.silenced("refunds"):
            approval = await proposed_by_call(target, people, "Mallory")
        recorded = [each.event for each in await people.events(approval.flow_id)]
        callers = {each.request.caller for each in recorded if each.event_id == approval.approval_id.rpartition(".")[2]}
        if callers != {"mallory"}:
            succeeded(f"the proposal is recorded as called for by {callers}")
        return "the proposal names its caller, mallory"
