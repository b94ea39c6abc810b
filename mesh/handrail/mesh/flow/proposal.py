"""Proposals: events that wait for their gates, and the votes on them. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from handrail.mesh.flow.values import replace
from handrail.mesh.template import GateSpec
from handrail.mesh.wire.envelope import Recorded


class ProposalState(Enum):
    """The state of a proposal."""

    EVALUATED = auto()
    PENDING = auto()
    APPROVED = auto()
    REJECTED = auto()
    EXPIRED = auto()
    RELEASED = auto()
    WITHDRAWN = auto()


@dataclass(frozen=True, slots=True)
class Ask:
    """One gate that asks for approval: the reason, who may not vote, and who voted yes.

    `gate.roles` are the roles that may vote: those of the template, unless people reassigned the approval.
    `reassigned_by` are those people. `credit` is how far absences moved its expiry. Absences count from `counted_from`
    on; None: from the request.
    """

    gate: GateSpec
    reason: str
    requester: str = ""
    voters: frozenset[str] = frozenset()
    passed: bool = False
    credit: timedelta = timedelta()
    counted_from: datetime | None = None
    reassigned_by: tuple[str, ...] = ()

    @property
    def nobody_qualifies(self) -> bool:
        """Whether the gate bars the requester, and the requester is unknown."""
        return self.gate.not_the_requester and not self.requester


@dataclass(frozen=True, slots=True)
class Ballot:
    """One valid vote, and its position in the stream. `on_behalf_of` is who delegated the role to the voter, if any."""

    voter: str
    approve: bool
    comment: str
    time: datetime
    sequence: int = 0
    on_behalf_of: str = ""

    @property
    def people(self) -> tuple[str, ...]:
        """The voter and who delegated the role to the voter: they count as one person."""
        return (self.voter, self.on_behalf_of) if self.on_behalf_of else (self.voter,)


@dataclass(frozen=True, slots=True)
class Proposal:
    """An event that waits for its gates. `asks` are the gates with a condition that is true or can't be evaluated."""

    recorded: Recorded
    asks: tuple[Ask, ...]
    digest: str
    state: ProposalState = ProposalState.EVALUATED
    ballots: tuple[Ballot, ...] = ()
    requested_at: datetime | None = None
    refused_by: Recorded | None = None

    @property
    def undecided(self) -> bool:
        """Whether it is not yet a fact, refused or withdrawn."""
        return self.state in _UNDECIDED

    @property
    def nobody_qualifies(self) -> bool:
        """Whether one of its gates can't be passed because the requester is unknown."""
        return any(ask.nobody_qualifies for ask in self.asks)

    def expiry(self, ask: Ask) -> datetime | None:
        """When the request of this gate expires; None if never, or if it was not made yet."""
        after = ask.gate.expires_after
        if self.requested_at is None or after is None or ask.passed:
            return None
        return self.requested_at + after + ask.credit

    def asked_again(self, time: datetime) -> Proposal:
        """The same proposal with the time to answer restarted."""
        asks = tuple(replace(ask, credit=timedelta(), counted_from=None) for ask in self.asks)
        return replace(self, asks=asks, state=ProposalState.PENDING, requested_at=time)

    def moved_expiry(self, gate: str, now: datetime, until: datetime) -> Proposal:
        """The same proposal with one gate's request expiring at `until`; absences count from `now` on."""
        asks = tuple(
            replace(ask, credit=ask.credit + (until - due), counted_from=now)
            if ask.gate.name == gate and (due := self.expiry(ask)) is not None
            else ask
            for ask in self.asks
        )
        return replace(self, asks=asks)

    def expired_ask(self, now: datetime) -> Ask | None:
        """The first gate with a request that expired by `now`, or None."""
        if self.state is not ProposalState.PENDING:
            return None
        return next((ask for ask in self.asks if (due := self.expiry(ask)) is not None and due <= now), None)

    @property
    def next_expiry(self) -> datetime | None:
        """When the coordinator has to look at it again; None without a request, or without an expiry."""
        return self.expires_at if self.state is ProposalState.PENDING else None

    @property
    def expires_at(self) -> datetime | None:
        """The earliest expiry among the gates that still ask."""
        return min((due for ask in self.asks if (due := self.expiry(ask)) is not None), default=None)


_UNDECIDED = (ProposalState.EVALUATED, ProposalState.PENDING, ProposalState.APPROVED, ProposalState.EXPIRED)
