"""ApprovalService: people answer proposals. The voter is the verified caller: no request names one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from grpc.aio import ServicerContext

from handrail.coordinator.api import authorization
from handrail.coordinator.api.approval_lists import ApprovalLists
from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.delegation_log import DelegationLog, is_revoked
from handrail.coordinator.api.flow_lookup import Finder, Part, no_approval
from handrail.coordinator.api.flow_reading import FlowReader
from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.api.rpc_tracing import link_flow
from handrail.coordinator.api.tokens.revocations import Revocations
from handrail.coordinator.api.views import act_view, approval_view, asks_people
from handrail.coordinator.decide import delegation, votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import ANY_APPROVER
from handrail.coordinator.reconcile.operator_actions import OperatorActions
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.v1 import approval_service_pb2 as pb
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceServicer
from handrail.v1.delegation_service_pb2 import ListedDelegation
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import Approval

_Context = ServicerContext[object, object]


class ApprovalService(ApprovalServiceServicer):
    """An approval is a proposal that asked people; its id names the flow and the proposal's event id."""

    def __init__(
        self,
        *,
        finder: Finder,
        reader: FlowReader,
        lists: ApprovalLists,
        operator_actions: OperatorActions,
        delegations: DelegationLog,
        revocations: Callable[[], Revocations],
    ) -> None:
        self._finder = finder
        self._reader = reader
        self._lists = lists
        self._operator_actions = operator_actions
        self._delegations = delegations
        self._revocations = revocations

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: _Context) -> pb.ListApprovalsResponse:
        """Returns one page."""
        return await self._lists.approvals(request)

    async def GetApproval(self, request: pb.GetApprovalRequest, context: _Context) -> pb.GetApprovalResponse:
        """Returns one approval; raises APPROVAL_NOT_FOUND."""
        flow, proposal_id = await self._reader.with_proposal(request.approval_id)
        return pb.GetApprovalResponse(approval=_approval(flow, proposal_id))

    async def ApproveProposal(
        self, request: pb.ApproveProposalRequest, context: _Context
    ) -> pb.ApproveProposalResponse:
        """Votes yes as the caller."""
        approval = await self._vote(request, approve=True)
        return pb.ApproveProposalResponse(approval=approval)

    async def RejectProposal(self, request: pb.RejectProposalRequest, context: _Context) -> pb.RejectProposalResponse:
        """Votes no as the caller."""
        approval = await self._vote(request, approve=False)
        return pb.RejectProposalResponse(approval=approval)

    async def ReassignApproval(
        self, request: pb.ReassignApprovalRequest, context: _Context
    ) -> pb.ReassignApprovalResponse:
        """Lets other roles vote at one gate."""
        caller = current_caller()
        found = await self._finder.votable(request.approval_id)
        judge = partial(
            votes.reassigning,
            approval_id=found.own_id,
            digest=request.digest,
            gate=request.gate,
            roles=request.roles,
            reason=request.reason,
        )
        answered = await self._operator_actions.answer(
            found.flow_type, found.flow_id, judge, caller=caller, request=caller_request(request, caller)
        )
        pending = None if answered.pending is None else act_view(answered.flow, answered.pending)
        return pb.ReassignApprovalResponse(approval=_approval(answered.flow, found.own_id), pending_act=pending)

    async def _vote(self, request: pb.ApproveProposalRequest | pb.RejectProposalRequest, *, approve: bool) -> Approval:
        caller = current_caller()
        if not caller.holds_somewhere(ANY_APPROVER) and not await self._delegated_to(caller):
            # Refused before the flow is read.
            raise authorization.missing_role()
        found = await self._finder.votable(request.approval_id)
        refused = authorization.missing_role(found.flow_type)
        if caller.holds(ANY_APPROVER, found.flow_type):
            try:
                return await self._recorded(request, found, caller, approve=approve)
            except HandrailError as error:
                if error.reason != ErrorReason.ERROR_REASON_MISSING_ROLE:
                    raise
                refused = error
        # Only a caller whose own roles don't qualify costs a look at the delegations.
        usable = [each for each in await self._delegated_to(caller) if delegation.covers(each, found.flow_type)]
        if not usable:
            raise refused
        return await self._recorded(request, found, caller, approve=approve, delegations=usable)

    async def _delegated_to(self, caller: Caller) -> Sequence[ListedDelegation]:
        in_force = delegation.in_force(await self._delegations.read(), caller.subject, datetime.now(UTC))
        revoked = self._revocations()
        return [each for each in in_force if not is_revoked(each.delegation, revoked)]

    async def _recorded(
        self,
        request: pb.ApproveProposalRequest | pb.RejectProposalRequest,
        found: Part,
        caller: Caller,
        *,
        approve: bool,
        delegations: Sequence[ListedDelegation] = (),
    ) -> Approval:
        judge = partial(
            votes.vote,
            approval_id=found.own_id,
            digest=request.digest,
            approve=approve,
            comment=request.comment,
            delegations=delegations,
        )
        flow = await self._operator_actions.record(
            found.flow_type, found.flow_id, judge, caller=caller, request=caller_request(request, caller)
        )
        return _approval(flow, found.own_id)


def _approval(flow: Flow, proposal_id: str) -> Approval:
    proposal = flow.proposals.get(proposal_id)
    if proposal is None or not asks_people(proposal):
        raise no_approval(qualified(flow, proposal_id))
    link_flow(flow)
    return approval_view(flow, proposal)
