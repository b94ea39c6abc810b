"""Access control: one row for each RPC that this server serves. A method without a row is refused.

A row says which roles may call the method, and which flow type the role must cover. `authorization` applies the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import (
    ANY_APPROVER,
    BREAKGLASS,
    EVERY_TYPE,
    OPERATOR,
    QUARANTINE_READER,
    READER,
    STARTER,
    TEMPLATE_ADMIN,
)


class Scope(Enum):
    """Where the flow type comes from that a caller's role must cover. The value is how the documentation says it."""

    NOTHING = "none"
    FLOW = "the type of the flow"
    NAMED = "the flow type that the request names"
    GIVEN = "the name of the template in the request"
    LISTED = "the type of each item; others are left out"
    INSTALLATION = "`*`"


@dataclass(frozen=True, slots=True)
class Access:
    """What a method needs: any of the `roles` on the flow type of its `scope`, or the `agent` claim, or any verified
    token (`anybody`), or nothing (`open`).

    `shows_more`: an open method that shows more to a verified caller.

    With `delegable`, somebody else may have passed the role on: whoever may read the flow type is let in, and the
    service looks for a delegation.
    """

    scope: Scope
    roles: tuple[str, ...] = ()
    agent: bool = False
    anybody: bool = False
    open: bool = False
    shows_more: bool = False
    delegable: bool = False

    def admits(self, caller: Caller) -> bool:
        """Tells whether the caller may call the method for any flow type at all."""
        if self.agent:
            return bool(caller.agent)
        if self.scope is Scope.INSTALLATION:
            return self.covers(caller, EVERY_TYPE)
        if self.delegable:
            return caller.holds_somewhere(READER)
        return self.open or self.anybody or any(caller.holds_somewhere(role) for role in self.roles)

    def covers(self, caller: Caller, flow_type: str) -> bool:
        """Tells whether the caller may call the method for this flow type."""
        if self.delegable:
            return caller.reads(flow_type)
        return any(caller.holds(role, flow_type) for role in self.roles)

    def needs(self, flow_type: str = "<flow type>") -> str:
        """Returns what a caller needs, as text for people."""
        if self.agent:
            return 'a token with an "agent" claim'
        scope = EVERY_TYPE if self.scope is Scope.INSTALLATION else flow_type
        return f"the grant {' or '.join(f'{role}@{scope}' for role in self.roles)}"


_START = (STARTER, OPERATOR)
_QUARANTINE = (QUARANTINE_READER, OPERATOR)

_OPEN = Access(Scope.NOTHING, open=True)
_OPEN_SHOWS_MORE = Access(Scope.NOTHING, open=True, shows_more=True)
_READ_FLOW = Access(Scope.FLOW, (READER,))
_READ_NAMED = Access(Scope.NAMED, (READER,))
_READ_LISTED = Access(Scope.LISTED, (READER,))
_OPERATE_FLOW = Access(Scope.FLOW, (OPERATOR,))
_VOTE = Access(Scope.FLOW, (ANY_APPROVER,), delegable=True)
_GIVEN_TEMPLATE = Access(Scope.GIVEN, (TEMPLATE_ADMIN,))
_CHANNELZ = Access(Scope.INSTALLATION, (OPERATOR,))

_BY_SERVICE: Mapping[str, Mapping[str, Access]] = {
    "handrail.v1.FlowService": {
        "StartFlow": Access(Scope.NAMED, _START),
        "PublishEvent": Access(Scope.NOTHING, agent=True),
        "GetFlow": _READ_FLOW,
        "ListFlowEvents": _READ_FLOW,
        "WatchFlow": _READ_FLOW,
        "ListFlows": _READ_LISTED,
        "CountFlows": _READ_LISTED,
        "CountFlowsByHour": _READ_LISTED,
        "ListDivergences": _READ_LISTED,
        "ListFailures": _READ_LISTED,
        "PlanCompensation": _READ_FLOW,
        "CompensateFlow": _OPERATE_FLOW,
        "CancelFlow": _OPERATE_FLOW,
        "RetryStep": _OPERATE_FLOW,
        "PlanMigration": _READ_NAMED,
        "MigrateFlow": _OPERATE_FLOW,
        "ResolveEscalation": _OPERATE_FLOW,
    },
    "handrail.v1.ApprovalService": {
        "ListApprovals": _READ_LISTED,
        "GetApproval": _READ_FLOW,
        # Which approvers count is the gate's to say; the fold judges the vote.
        "ApproveProposal": _VOTE,
        "RejectProposal": _VOTE,
        "ReassignApproval": _OPERATE_FLOW,
    },
    "handrail.v1.DelegationService": {
        "Delegate": Access(Scope.NAMED, (ANY_APPROVER,)),
        # One of the two people, or an operator of the flow type.
        "EndDelegation": Access(Scope.NOTHING, anybody=True),
        "ListDelegations": Access(Scope.NOTHING, anybody=True),
    },
    "handrail.v1.ActService": {
        "ListActs": _READ_LISTED,
        "GetAct": _READ_FLOW,
        # Which of the roles it takes depends on the act; the fold judges the confirmation.
        "ConfirmAct": Access(Scope.FLOW, (OPERATOR, TEMPLATE_ADMIN, BREAKGLASS)),
        "WithdrawAct": Access(Scope.FLOW, (OPERATOR, TEMPLATE_ADMIN)),
        "GetPolicy": Access(Scope.INSTALLATION, (READER,)),
        "SetPolicy": Access(Scope.INSTALLATION, (TEMPLATE_ADMIN,)),
    },
    "handrail.v1.TemplateService": {
        # A check compiles contracts and conditions: work for those alone who may store what they have checked.
        "CheckTemplate": _GIVEN_TEMPLATE,
        "PutTemplate": _GIVEN_TEMPLATE,
        "ActivateTemplate": Access(Scope.NAMED, (TEMPLATE_ADMIN,)),
        "GetTemplate": _READ_NAMED,
        "ListTemplates": _READ_LISTED,
        # A replay takes CPU and reads much of the stream. Whoever may store a template may ask what it would do.
        "ReplayPolicy": _GIVEN_TEMPLATE,
        "ListActivations": _READ_NAMED,
        "GetTemplateUsage": _READ_LISTED,
    },
    "handrail.v1.QuarantineService": {
        "ListQuarantined": Access(Scope.LISTED, _QUARANTINE),
        "GetQuarantined": Access(Scope.FLOW, _QUARANTINE),
    },
    "handrail.v1.IdentityService": {"WhoAmI": Access(Scope.NOTHING, anybody=True)},
    "grpc.health.v1.Health": {"Check": _OPEN, "List": _OPEN, "Watch": _OPEN},
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": _OPEN_SHOWS_MORE},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _OPEN_SHOWS_MORE},
    "grpc.channelz.v1.Channelz": {
        "GetTopChannels": _CHANNELZ,
        "GetServers": _CHANNELZ,
        "GetServer": _CHANNELZ,
        "GetServerSockets": _CHANNELZ,
        "GetChannel": _CHANNELZ,
        "GetSubchannel": _CHANNELZ,
        "GetSocket": _CHANNELZ,
    },
}

ACCESS: Mapping[str, Access] = {
    f"/{service}/{method}": access for service, methods in _BY_SERVICE.items() for method, access in methods.items()
}
"""What each RPC requires of its caller, by full method path."""


def documented() -> Iterator[str]:
    """Yields the lines of the table that docs/permissions.md shows: the RPCs of each row together."""
    yield "| RPC | role | flow type that it must cover |"
    yield "| --- | --- | --- |"
    for service, methods in _BY_SERVICE.items():
        alike: dict[Access, list[str]] = {}
        for method, access in methods.items():
            alike.setdefault(access, []).append(method)
        name = service.rpartition(".")[2] if service.startswith("handrail.") else service
        for access, names in alike.items():
            yield f"| {name}: {', '.join(names)} | {_needed(access)} | {access.scope.value} |"


def _needed(access: Access) -> str:
    if access.open:
        return "open, no token"
    if access.anybody:
        return "any verified token"
    if access.agent:
        return "the `agent` claim"
    return " or ".join(f"`{role}`" for role in access.roles) + (", own or delegated" if access.delegable else "")
