"""IdentityService: who the caller is to this installation."""

from __future__ import annotations

from grpc.aio import ServicerContext

from handrail.coordinator.api.tokens.verifier import current_token
from handrail.mesh.wire.identity import canonical
from handrail.v1 import identity_service_pb2 as pb
from handrail.v1.identity_service_pb2_grpc import IdentityServiceServicer

_Context = ServicerContext[object, object]


class IdentityService(IdentityServiceServicer):
    """Answers from the token of the call; reads nothing."""

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: _Context) -> pb.WhoAmIResponse:
        """Returns what the caller's token proves."""
        verified = current_token()
        caller, validity = verified.caller, verified.validity
        answer = pb.WhoAmIResponse(
            subject=caller.subject,
            canonical_subject=canonical(caller.subject),
            grants=sorted(map(str, caller.grants)),
            agent=caller.agent,
            issuer=verified.issuer,
            token_id=validity.token_id,
        )
        answer.expire_time.FromDatetime(validity.expires_at)
        if validity.issued_at is not None:
            answer.issue_time.FromDatetime(validity.issued_at)
        return answer
