"""Roles that are passed on, and approvals that are reassigned, used to get past a gate alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc.aio

from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import delegation_service_pb2 as pb
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, ReassignApprovalRequest
from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub
from handrail.v1.flow_service_pb2 import Approval
from tests.attacks.attack import attack, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.attacks.people import reason_of
from tests.support.api import bearer
from tests.support.people import People, name_of

HOUR = timedelta(hours=1)


async def delegate(people: People, name: str, *roles: str, to: str) -> None:
    """Passes the role finance on, for refunds."""
    request = pb.DelegateRequest(
        delegate=to, role="finance", flow_type="refund", end_time=timestamp(datetime.now(UTC) + HOUR)
    )
    stub = DelegationServiceStub(people.api.channel)
    await stub.Delegate(request, metadata=bearer(people.api.token(name, *roles)))


async def votes(people: People, approval: Approval, *voters: tuple[str, str]) -> str:
    """What each voter is told, who has this role; raises Succeeded if the gate opens."""
    told = []
    for name, role in voters:
        request = ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        try:
            answer = await people.approvals.ApproveProposal(request, metadata=bearer(people.api.token(name, role)))
            told.append(f"{name}: {len(answer.approval.votes)} of 2")
        except grpc.aio.AioRpcError as error:
            told.append(f"{name}: {reason_of(error)}")
    if name_of((await people.flow(approval.flow_id)).status) != "WAITING_APPROVAL":
        succeeded(f"the gate opened: {told}")
    return ", ".join(told)


@attack("110", "delegator and delegate give both votes", mutant="p6_delegate_and_delegator_are_two")
async def both_sides(target: Installation) -> str:
    async with target.people() as people:
        approval = await people.approval(await target.flow_from_start(people, LARGE))
        await delegate(people, "anna", "finance", to="dora")
        return await votes(people, approval, ("dora", "intern"), ("anna", "finance"), ("dora", "intern"))


@attack("111", "who asked for a refund has a delegate approve it", mutant="p6_the_requester_votes")
async def through_a_delegate(target: Installation) -> str:
    async with target.people() as people:
        approval = await people.approval(await target.flow_from_start(people, LARGE))  # by olga
        await delegate(people, "olga", "finance", to="emil")
        said = await votes(people, approval, ("emil", "intern"))
        if (await people.flow(approval.flow_id)).approvals[0].votes:
            succeeded(said)
        return said


@attack("112", "a delegate passes the role on to a third", mutant="p6_a_role_is_passed_on_by_who_does_not_hold_it")
async def chain(target: Installation) -> str:
    async with target.people() as people:
        await delegate(people, "ben", "finance", to="fred")
        try:
            await delegate(people, "fred", "intern", to="gina")
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        succeeded("fred, who has no role, delegated one")


@attack("113", "an operator lets a role of hers vote, and votes", mutant="p6_who_reassigned_it_votes")
async def to_oneself(target: Installation) -> str:
    async with target.people() as people:
        approval = await people.approval(await target.flow_from_start(people, LARGE))
        request = ReassignApprovalRequest(
            approval_id=approval.approval_id, digest=approval.digest, roles=["operator"], reason="in a hurry"
        )
        otto = bearer(people.api.token("otto", "operator"))
        await people.approvals.ReassignApproval(request, metadata=otto)
        said = await votes(people, approval, ("otto", "operator"), ("Otto ", "operator"))
        if (await people.flow(approval.flow_id)).approvals[0].votes:
            succeeded(said)
        return said
