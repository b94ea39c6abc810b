"""Delegations and reassigned approvals over gRPC, on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import delegation_service_pb2 as pb
from handrail.v1.decision_pb2 import ApprovalGiven
from handrail.v1.delegation_service_pb2_grpc import DelegationServiceStub
from handrail.v1.flow_service_pb2 import ApprovalStatus
from tests.integration.api.test_story import Library
from tests.support.api import Api, bearer, refused, running_api
from tests.support.waiting import eventually

DAY = timedelta(days=1)


def wanted(delegate: str = "dora", **fields: object) -> pb.DelegateRequest:
    given: dict[str, object] = {
        "role": "librarian",
        "flow_type": "loan",
        "end_time": timestamp(datetime.now(UTC) + DAY),
        **fields,
    }
    return pb.DelegateRequest(delegate=delegate, **given)  # type: ignore[arg-type]


class Desk:
    """A library whose loans wait for librarians, and calls about delegations."""

    def __init__(self, api: Api, library: Library) -> None:
        self.api, self.library = api, library
        self.delegations = DelegationServiceStub(api.channel)

    def by(self, name: str, *roles: str) -> tuple[tuple[str, str], ...]:
        return tuple(bearer(self.api.token(name, *roles)))

    async def delegate(self, name: str, request: pb.DelegateRequest, *roles: str) -> pb.ListedDelegation:
        answer = await self.delegations.Delegate(request, metadata=self.by(name, *(roles or ("librarian",))))
        return answer.delegation

    async def vote(self, name: str, approval_id: str, digest: str, *roles: str) -> approvals.ApproveProposalResponse:
        request = approvals.ApproveProposalRequest(approval_id=approval_id, digest=digest)
        answer: approvals.ApproveProposalResponse = await self.api.call(
            "ApprovalService/ApproveProposal",
            request,
            approvals.ApproveProposalResponse,
            metadata=self.by(name, *roles),
        )
        return answer

    async def waiting(self) -> tuple[str, str]:
        """An approval that two librarians have to give, and its digest."""
        flow_id = await self.library.reserved_and_granted(5_000)
        asked = await self.library.approval(flow_id)
        return asked["approvalId"], asked["digest"]


@pytest.fixture
async def desk(api: Api, tmp_path: Path) -> Desk:
    library = Library(api)
    await library.open(tmp_path)
    return Desk(api, library)


@pytest.fixture
async def other_replica(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(bus, tmp_path, holder="other", decides=False) as api:
        yield api


async def test_p6_a_delegate_votes_and_the_vote_names_both(desk: Desk) -> None:
    approval_id, digest = await desk.waiting()
    nobody = await refused(desk.vote("dora", approval_id, digest))
    assert nobody.reason == "MISSING_ROLE"
    listed = await desk.delegate("lisa", wanted())
    assert listed.status == pb.DelegationStatus.DELEGATION_STATUS_ACTIVE

    voted = (await desk.vote("dora", approval_id, digest)).approval
    assert [(vote.voter, vote.on_behalf_of) for vote in voted.votes] == [("dora", "lisa")]
    flow = await desk.library.flow(voted.flow_id)
    assert flow["flowType"] == "loan"
    recorded = await desk.library.call("lisa", "FlowService/ListFlowEvents", {"flowId": voted.flow_id})
    given = [each["event"]["data"] for each in recorded["events"] if "ApprovalGiven" in str(each["event"]["data"])]
    assert [(each["onBehalfOf"], each["delegation"], each["roles"]) for each in given] == [
        ("lisa", str(listed.sequence), ["librarian"])
    ], f"{ApprovalGiven.DESCRIPTOR.full_name} says on whose behalf, and by which delegation"

    assert (await refused(desk.vote("lisa", approval_id, digest, "librarian"))).reason == "ALREADY_VOTED"


async def test_a_delegation_counts_on_every_replica_and_ends_on_every_replica(desk: Desk, other_replica: Api) -> None:
    approval_id, digest = await desk.waiting()
    elsewhere = Desk(other_replica, desk.library)
    listed = await desk.delegate("lisa", wanted(flow_type="*"))
    end = pb.EndDelegationRequest(delegation_id=listed.delegation.delegation_id, reason="back")
    ended = (await elsewhere.delegations.EndDelegation(end, metadata=desk.by("dora"))).delegation
    assert (ended.status, ended.end.by) == (pb.DelegationStatus.DELEGATION_STATUS_ENDED, "dora")
    again = (await desk.delegations.EndDelegation(end, metadata=desk.by("olga", "operator"))).delegation
    assert again.end == ended.end, "the first end stays"
    assert (await refused(desk.vote("dora", approval_id, digest))).reason == "MISSING_ROLE"


@pytest.mark.parametrize(
    "name, roles, request_of, why",
    [
        ("lisa", ("intern",), wanted(), "does not hold approver.librarian@loan"),
        ("lisa", ("librarian",), wanted("Lisa "), "to themselves"),
        ("lisa", ("librarian",), wanted("agent/desk"), "is an agent"),
        ("lisa", ("librarian",), wanted("\u200b"), "no visible character"),
        ("lisa", ("librarian",), wanted("\u0430nna"), "ambiguous"),
        ("lisa", ("librarian",), wanted(end_time=timestamp(datetime.now(UTC) - DAY)), "ended already"),
        ("lisa", ("librarian",), wanted(end_time=timestamp(datetime.now(UTC) + 91 * DAY)), "later than 90 days"),
    ],
)
async def test_p6_what_may_not_be_delegated(
    desk: Desk, name: str, roles: tuple[str, ...], request_of: pb.DelegateRequest, why: str
) -> None:
    refusal = await refused(desk.delegations.Delegate(request_of, metadata=desk.by(name, *roles)))
    assert refusal.reason == "DELEGATION_REFUSED"
    assert why in refusal.status.message


async def test_p6_a_delegated_role_is_not_passed_on(desk: Desk) -> None:
    await desk.delegate("lisa", wanted("dora"))
    refusal = await refused(desk.delegations.Delegate(wanted("emil"), metadata=desk.by("dora", "intern")))
    assert refusal.reason == "DELEGATION_REFUSED"


async def test_the_same_request_is_recorded_once(desk: Desk) -> None:
    request = wanted(request_id=str(uuid4()))
    first = await desk.delegate("lisa", request)
    assert await desk.delegate("lisa", request) == first
    other = wanted("emil", request_id=request.request_id)
    refusal = await refused(desk.delegations.Delegate(other, metadata=desk.by("lisa", "librarian")))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_everybody_sees_their_own_delegations_and_operators_all(desk: Desk) -> None:
    mine = await desk.delegate("lisa", wanted("dora"))
    await desk.delegate("luis", wanted("emil"))

    async def seen(name: str, *roles: str) -> list[str]:
        request = pb.ListDelegationsRequest(page_size=1)
        found: list[str] = []
        while True:
            page = await desk.delegations.ListDelegations(request, metadata=desk.by(name, *roles))
            found += [each.delegation.delegator for each in page.delegations]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    assert await seen("lisa") == await seen("dora") == ["lisa"]
    assert await seen("olga", "operator") == ["lisa", "luis"]
    end = pb.EndDelegationRequest(delegation_id=mine.delegation.delegation_id)
    assert (await refused(desk.delegations.EndDelegation(end, metadata=desk.by("emil")))).reason == (
        "DELEGATION_NOT_FOUND"
    )


async def test_p6_a_reassigned_approval_takes_votes_of_other_roles(desk: Desk) -> None:
    approval_id, digest = await desk.waiting()
    request = approvals.ReassignApprovalRequest(
        approval_id=approval_id, digest=digest, roles=["director"], reason="nobody is in", request_id=str(uuid4())
    )

    async def reassign(name: str, *roles: str) -> approvals.ReassignApprovalResponse:
        answer: approvals.ReassignApprovalResponse = await desk.api.call(
            "ApprovalService/ReassignApproval",
            request,
            approvals.ReassignApprovalResponse,
            metadata=desk.by(name, *roles),
        )
        return answer

    assert (await refused(reassign("lisa", "librarian"))).reason == "MISSING_ROLE"
    shown = (await reassign("olga", "operator")).approval
    assert [(list(gate.roles), list(gate.reassigned_by)) for gate in shown.gates] == [(["director"], ["olga"])]
    assert (await reassign("olga", "operator")).approval == shown, "the same request is recorded once"
    assert (await refused(desk.vote("lisa", approval_id, digest, "librarian"))).reason == "MISSING_ROLE"
    own = await refused(desk.vote("olga", approval_id, digest, "operator", "director"))
    assert own.reason == "REASSIGNER_MAY_NOT_VOTE"
    await desk.vote("dirk", approval_id, digest, "director")
    voted = (await desk.vote("dana", approval_id, digest, "director")).approval
    assert voted.status == ApprovalStatus.APPROVAL_STATUS_APPROVED


async def test_p6_a_delegation_ends_with_the_revoked_token_that_made_it(bus: NatsBus, tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    tokens = TokenSettings(revocations=revoked)
    async with running_api(bus, tmp_path, tokens=tokens) as api:
        desk = Desk(api, Library(api))
        await desk.library.open(tmp_path)
        await desk.delegate("lisa", wanted())
        approval_id, digest = await desk.waiting()
        revoked.write_text(f"subject {datetime.now(UTC).isoformat()} lisa\n")

        async def vote() -> str:
            return (await refused(desk.vote("dora", approval_id, "0" * 64))).reason

        assert await eventually(vote, lambda reason: reason == "MISSING_ROLE") == "MISSING_ROLE"
        assert (await refused(desk.vote("dora", approval_id, digest))).reason == "MISSING_ROLE"
