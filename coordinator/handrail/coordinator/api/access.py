"""Access control: one row for each RPC that this server serves. A method without a row is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

OPERATOR = "operator"
"""Intervenes: compensates, cancels, retries and resolves flows; stores and activates templates."""

STARTER = "starter"
"""Starts flows."""

VIEWER = "viewer"
"""Reads quarantined messages."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a method needs: nothing (`open`), any of the `roles` (empty: any verified token), or the `agent` claim."""

    roles: frozenset[str] = frozenset()
    open: bool = False
    agent: bool = False


_OPEN = Access(open=True)
_ANYBODY = Access()
_OPERATOR = Access(frozenset({OPERATOR}))
_STARTER = Access(frozenset({OPERATOR, STARTER}))
_VIEWER = Access(frozenset({OPERATOR, VIEWER}))
_AGENT = Access(agent=True)

_BY_SERVICE: Mapping[str, Mapping[str, Access]] = {
    "handrail.v1.FlowService": {
        "StartFlow": _STARTER,
        "PublishEvent": _AGENT,
        "GetFlow": _ANYBODY,
        "ListFlowEvents": _ANYBODY,
        "WatchFlow": _ANYBODY,
        "ListFlows": _ANYBODY,
        "ListDivergences": _ANYBODY,
        "PlanCompensation": _ANYBODY,
        "CompensateFlow": _OPERATOR,
        "CancelFlow": _OPERATOR,
        "RetryStep": _OPERATOR,
        "PlanMigration": _ANYBODY,
        "MigrateFlow": _OPERATOR,
        "ResolveEscalation": _OPERATOR,
    },
    "handrail.v1.ApprovalService": {
        "ListApprovals": _ANYBODY,
        "GetApproval": _ANYBODY,
        # The gate decides whose vote counts.
        "ApproveProposal": _ANYBODY,
        "RejectProposal": _ANYBODY,
    },
    "handrail.v1.TemplateService": {
        "CheckTemplate": _ANYBODY,
        "PutTemplate": _OPERATOR,
        "ActivateTemplate": _OPERATOR,
        "GetTemplate": _ANYBODY,
        "ListTemplates": _ANYBODY,
        # A replay takes CPU and reads much of the stream. Whoever may store a template may ask what it would do.
        "ReplayPolicy": _OPERATOR,
        "ListActivations": _ANYBODY,
        "GetTemplateUsage": _ANYBODY,
    },
    "handrail.v1.QuarantineService": {
        "ListQuarantined": _VIEWER,
        "GetQuarantined": _VIEWER,
    },
    "handrail.v1.IdentityService": {"WhoAmI": _ANYBODY},
    "grpc.health.v1.Health": {"Check": _OPEN, "List": _OPEN, "Watch": _OPEN},
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": _OPEN},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _OPEN},
    "grpc.channelz.v1.Channelz": {
        "GetTopChannels": _OPERATOR,
        "GetServers": _OPERATOR,
        "GetServer": _OPERATOR,
        "GetServerSockets": _OPERATOR,
        "GetChannel": _OPERATOR,
        "GetSubchannel": _OPERATOR,
        "GetSocket": _OPERATOR,
    },
}

ACCESS: Mapping[str, Access] = {
    f"/{service}/{method}": access for service, methods in _BY_SERVICE.items() for method, access in methods.items()
}
"""What each RPC requires of its caller, by full method path."""


def require(method: str, caller: Caller) -> None:
    """Raises MISSING_ROLE unless the caller may call this method."""
    access = ACCESS.get(method)
    if access is None:
        raise _missing(method, caller, "nobody may call it")
    if access.agent and not caller.agent:
        raise _missing(method, caller, 'it needs a token with an "agent" claim')
    if access.roles and not access.roles & caller.roles:
        raise _missing(method, caller, f"it needs the role {' or '.join(sorted(access.roles))}")


def _missing(method: str, caller: Caller, why: str) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_MISSING_ROLE,
        f"{caller.subject} may not call {method.rpartition('/')[2]}: {why}",
        subject=caller.subject,
        method=method,
    )
