"""Two persons: the acts that take them, and the judgement of a confirmation. Pure; flows and templates share it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple, Protocol

from handrail.mesh.wire.identity import same, why_ambiguous
from handrail.v1 import template_pb2 as pb
from handrail.v1.act_pb2 import Act, ActConfirmation
from handrail.v1.error_reason_pb2 import ErrorReason

CONFIRM_WITHIN = timedelta(hours=24)
"""How long the second person has to confirm an act, where the template or the policy does not say."""

PERSONS = 2
"""How many different people such an act needs."""

BREAKGLASS = "breakglass"
"""The role that does such an act without another person."""


class ActState(Enum):
    """The state of an act. One that nobody confirmed in time stays PENDING: its expiry tells."""

    PENDING = auto()
    CONFIRMED = auto()
    FORCED = auto()
    WITHDRAWN = auto()


class Asked(Protocol):
    """What one person asked for: a confirmation counts up to `expires`, by the stream's time."""

    @property
    def by(self) -> str:
        """Who asked."""

    @property
    def digest(self) -> str:
        """What a confirmation is bound to."""

    @property
    def expires(self) -> datetime:
        """The last moment at which a confirmation counts."""

    @property
    def state(self) -> ActState:
        """Its state."""


class Refused(NamedTuple):
    """Why a confirmation does not count."""

    text: str
    reason: ErrorReason.ValueType


def has_expired(asked: Asked, now: datetime) -> bool:
    """Whether it still waits at `now`, too late for a confirmation to count."""
    return asked.state is ActState.PENDING and now > asked.expires


def why_not(asked: Asked | None, said: ActConfirmation, now: datetime, *, role: str) -> Refused | None:
    """Why this confirmation does not count at `now`; None if it does. `role` is the one that the act needs."""
    if asked is None:
        return Refused("no such act is pending", ErrorReason.ERROR_REASON_ACT_NOT_FOUND)
    if asked.state is not ActState.PENDING or has_expired(asked, now):
        state = "has expired" if has_expired(asked, now) else f"is {asked.state.name.lower()}"
        return Refused(f"the act {state}", ErrorReason.ERROR_REASON_ACT_CLOSED)
    if said.digest != asked.digest:
        return Refused("the confirmation is for another digest", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
    ambiguous = why_ambiguous(said.by)
    if ambiguous:
        return Refused(f"the name {said.by} is ambiguous: {ambiguous}", ErrorReason.ERROR_REASON_AMBIGUOUS_NAME)
    needed = BREAKGLASS if said.break_glass else role
    if not said.by or needed not in said.roles:
        return Refused(f"{said.by or 'nobody'} does not have the role {needed}", ErrorReason.ERROR_REASON_MISSING_ROLE)
    if said.break_glass and not said.reason.strip():
        return Refused("whoever breaks the glass must say why", ErrorReason.ERROR_REASON_TWO_PERSONS_NEEDED)
    if not said.break_glass and same(said.by, asked.by):
        return Refused(f"{said.by} asked for it; another person must confirm it", ErrorReason.ERROR_REASON_SAME_PERSON)
    return None


def acts_for_two(proto: pb.FlowTemplate) -> frozenset[Act.ValueType]:
    """The acts that need two persons: a move to another version too, as soon as there are any."""
    acts = frozenset(proto.require_two)
    return acts | {Act.ACT_MIGRATE} if acts else acts


def spelled(acts: Iterable[Act.ValueType]) -> str:
    """Acts as text for people: `CANCEL, RESOLVE`."""
    return ", ".join(sorted(Act.Name(act).removeprefix("ACT_") for act in acts))
