"""DelegationService: people pass a role on for a time. The delegator is the verified caller: no request names one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_hex

from grpc.aio import ServicerContext

from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.delegation_log import DelegationLog
from handrail.coordinator.api.paging import fitting, page_size, page_token, sequence_of
from handrail.coordinator.api.template_lookup import TemplateFinder
from handrail.coordinator.api.tokens.verifier import current_token
from handrail.coordinator.decide import delegation as rules
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import EVERY_TYPE, OPERATOR
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import delegation_service_pb2 as pb
from handrail.v1.delegation_service_pb2_grpc import DelegationServiceServicer

_Context = ServicerContext[object, object]
_DEFAULT_PAGE = 50
_OVER = (pb.DelegationStatus.DELEGATION_STATUS_EXPIRED, pb.DelegationStatus.DELEGATION_STATUS_ENDED)


class DelegationService(DelegationServiceServicer):
    """Records delegations; votes look them up (`decide.delegation`)."""

    def __init__(self, delegations: DelegationLog, templates: TemplateFinder) -> None:
        self._delegations = delegations
        self._templates = templates

    async def Delegate(self, request: pb.DelegateRequest, context: _Context) -> pb.DelegateResponse:
        """Passes on a role that the caller holds; raises DELEGATION_REFUSED with the reason."""
        caller, now = current_caller(), datetime.now(UTC)
        if request.flow_type != EVERY_TYPE:
            await self._templates.active(request.flow_type)
        asked, token = caller_request(request, caller), current_token().validity
        wanted = pb.Delegation(
            delegation_id=ids.delegation_id(asked.caller, asked.id) if asked.id else token_hex(16),
            delegator=caller.subject,
            delegate=request.delegate,
            role=request.role,
            flow_type=request.flow_type,
            start_time=request.start_time if request.HasField("start_time") else timestamp(now),
            end_time=request.end_time,
            reason=request.reason,
            request=asked,
            token_id=token.token_id,
            token_issue_time=None if token.issued_at is None else timestamp(token.issued_at),
            agent=caller.agent,
        )
        recorded = await self._delegations.read()
        if not any(each.delegation.delegation_id == wanted.delegation_id for each in recorded):
            why = rules.why_refused(wanted, caller, now, recorded)
            if why:
                raise rules.refused(why)
        return pb.DelegateResponse(delegation=_shown(await self._delegations.add(wanted), now))

    async def EndDelegation(self, request: pb.EndDelegationRequest, context: _Context) -> pb.EndDelegationResponse:
        """Ends a delegation early; raises DELEGATION_NOT_FOUND, also if the caller may not see it."""
        caller, now = current_caller(), datetime.now(UTC)
        visible = _visible(await self._delegations.read(), caller)
        if not any(each.delegation.delegation_id == request.delegation_id for each in visible):
            raise rules.not_found(request.delegation_id)
        end = pb.DelegationEnd(
            by=caller.subject, reason=request.reason, time=timestamp(now), request=caller_request(request, caller)
        )
        return pb.EndDelegationResponse(delegation=_shown(await self._delegations.end(request.delegation_id, end), now))

    async def ListDelegations(
        self, request: pb.ListDelegationsRequest, context: _Context
    ) -> pb.ListDelegationsResponse:
        """Returns one page, oldest first."""
        caller, now = current_caller(), datetime.now(UTC)
        listing = ("delegations", request.include_past)
        cursor = sequence_of(request.page_token, *listing)
        found = [
            _shown(each, now)
            for each in _visible(await self._delegations.read(), caller)
            if each.sequence > cursor and (request.include_past or rules.status(each, now) not in _OVER)
        ]
        page = fitting(found, page_size(request.page_size, _DEFAULT_PAGE))
        last = page[-1].sequence if len(page) < len(found) else 0
        return pb.ListDelegationsResponse(delegations=page, next_page_token=page_token(last, *listing))


def _visible(recorded: Sequence[pb.ListedDelegation], caller: Caller) -> list[pb.ListedDelegation]:
    return [
        each for each in recorded if rules.concerns(each, caller) or caller.holds(OPERATOR, each.delegation.flow_type)
    ]


def _shown(listed: pb.ListedDelegation, now: datetime) -> pb.ListedDelegation:
    shown = pb.ListedDelegation()
    shown.CopyFrom(listed)
    shown.status = rules.status(listed, now)
    return shown
