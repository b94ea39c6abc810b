"""Decisions of people on templates: activations and the policy, judged in stream order. Pure.

    template.<name>.active.<n>      Activation: counts with a confirmation, or if the policy lets one person do it
    template.<name>.pending.<n>     TemplateActRequested: changes nothing
    template.<name>.withdrawn.<n>   TemplateActWithdrawn, of the pending act with the same number

The policy has the name `_policy`, which no template can have; its `active` messages are `InstallationPolicy`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from handrail.mesh.template.compilation import bounded
from handrail.mesh.template.persons import CONFIRM_WITHIN, PERSONS, ActState, Refused, spelled, why_not
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack, type_of
from handrail.mesh.wire.identity import same
from handrail.mesh.wire.subjects import POLICY
from handrail.v1.act_pb2 import Act, ActConfirmation
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.template_pb2 import Activation, InstallationPolicy, TemplateActRequested, TemplateActWithdrawn

TEMPLATE_ADMIN = "template_admin"
"""The role that asks for acts on templates, and confirms them."""

Decided = Activation | InstallationPolicy
"""What a person decides on a template, or on the policy."""


_KINDS = ("active", "pending", "withdrawn")


class Moment(NamedTuple):
    """The position of a message in the stream, and when it was stored."""

    sequence: int
    time: datetime


class Activated(NamedTuple):
    """An entry of an activation log, and its position in the stream."""

    sequence: int
    activation: Activation


@dataclass(frozen=True, slots=True)
class TemplateAct:
    """An act on a template, or on the policy, as `by` asked for it in the message `request`, at `asked_at`."""

    name: str
    number: int
    request: TemplateActRequested
    asked_at: datetime
    state: ActState = ActState.PENDING
    settled_by: str = ""
    settle_reason: str = ""
    settled_at: datetime | None = None
    confirmation: ActConfirmation | None = None

    @property
    def act_id(self) -> str:
        """Its id."""
        return ids.template_act_id(self.name, self.number)

    @property
    def by(self) -> str:
        """Who asked."""
        return self.request.by

    @property
    def digest(self) -> str:
        """What a confirmation is bound to."""
        return self.request.digest

    @property
    def expires(self) -> datetime:
        """The last moment at which a confirmation counts."""
        return self.asked_at + bounded(self.request.confirm_within)

    @property
    def decided(self) -> Decided:
        """What will be recorded, without time, request and confirmation."""
        return _parsed(self.name, self.request.act.value)

    @property
    def acts(self) -> frozenset[Act.ValueType]:
        """What it is."""
        return frozenset({act_on(self.name)})


class TemplateDecisions:
    """What the TEMPLATE stream says of activations and of the policy, up to the last message taken."""

    def __init__(self) -> None:
        self.policies: list[InstallationPolicy] = []
        """The policies that count, oldest first: the last one is in force."""
        self.acts: dict[str, TemplateAct] = {}
        self.refused: dict[str, Refused] = {}
        """Messages that do not count, by subject."""
        self._activations: dict[str, dict[int, Activated]] = {}
        self._last: dict[tuple[str, str], int] = {}

    @property
    def policy(self) -> InstallationPolicy:
        """The policy in force; empty where none was set."""
        return self.policies[-1] if self.policies else InstallationPolicy()

    @property
    def require_two(self) -> frozenset[Act.ValueType]:
        """The acts that need two persons by the policy in force."""
        acts = frozenset(self.policy.require_two)
        return acts | {Act.ACT_CHANGE_POLICY} if acts else acts

    @property
    def confirm_within(self) -> timedelta:
        """How long the second person has, by the policy in force."""
        return bounded(self.policy.confirm_within) if self.policy.HasField("confirm_within") else CONFIRM_WITHIN

    def log(self, name: str) -> list[Activated]:
        """The activations of a template that count, oldest first."""
        recorded = self._activations.get(name, {})
        return [recorded[number] for number in sorted(recorded)]

    def next_number(self, name: str, kind: str) -> int:
        """The number of the next message of this kind: `active` or `pending`. Those that don't count have one, too."""
        return self._last.get((name, kind), 0) + 1

    def take(self, subject: str, body: bytes, *, sequence: int, time: datetime) -> CallerRequest | None:
        """Takes the next message of the stream; None if it is none of these. Raises DecodeError or ValueError.

        Returns the call that recorded it, so far as it counts: one that does not count must not block the next try.
        """
        tokens = subject.split(".")
        if len(tokens) != 4 or tokens[2] not in _KINDS:
            return None
        _, name, kind, number = tokens
        self._last[name, kind] = max(self._last.get((name, kind), 0), int(number))
        message: Decided | TemplateActRequested | TemplateActWithdrawn
        if kind == "pending":
            message = TemplateActRequested.FromString(body)
            refused = self._request(name, int(number), message, time)
        elif kind == "withdrawn":
            message = TemplateActWithdrawn.FromString(body)
            refused = self._withdraw(name, int(number), message, time)
        else:
            message = _parsed(name, body)
            refused = self._decide(name, int(number), message, Moment(sequence, time))
        if refused is not None:
            self.refused[subject] = refused
            return CallerRequest()
        return message.request

    def _decide(self, name: str, number: int, decided: Decided, moment: Moment) -> Refused | None:
        refused = self.why_not(name, decided, moment.time)
        if refused is not None:
            return refused
        if decided.HasField("confirmation"):
            self._confirm(decided.confirmation, moment.time)
        if isinstance(decided, InstallationPolicy):
            self.policies.append(decided)
        else:
            self._activations.setdefault(name, {})[number] = Activated(moment.sequence, decided)
        return None

    def why_not(self, name: str, decided: Decided, time: datetime) -> Refused | None:
        """Why a decision stored at `time` does not count for want of a second person; None if it does."""
        if decided.HasField("confirmation"):
            act = self.acts.get(decided.confirmation.act_id)
            if act is not None and digest_of(name, bare(decided)) != act.digest:
                return Refused("it is not the act that was confirmed", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
            return why_not(act, decided.confirmation, time, role=TEMPLATE_ADMIN)
        if act_on(name) in self.require_two:
            text = f"{spelled([act_on(name)])} needs two persons"
            return Refused(text, ErrorReason.ERROR_REASON_TWO_PERSONS_NEEDED)
        return None

    def _request(self, name: str, number: int, request: TemplateActRequested, time: datetime) -> Refused | None:
        act = TemplateAct(name, number, request, time)
        if act_on(name) not in self.require_two:
            return Refused("one person may do it alone", ErrorReason.ERROR_REASON_UNSPECIFIED)
        if not request.by or not same(request.by, act.decided.by):
            return Refused("it does not name who asked for it", ErrorReason.ERROR_REASON_MISSING_ROLE)
        if request.digest != digest_of(name, bare(act.decided)) or request.act != bare(act.decided):
            return Refused("its digest differs from the act's", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
        if request.persons != PERSONS or bounded(request.confirm_within) != self.confirm_within:
            return Refused("the policy wants two persons within another time", ErrorReason.ERROR_REASON_UNSPECIFIED)
        self.acts[act.act_id] = act
        return None

    def _withdraw(self, name: str, number: int, withdrawn: TemplateActWithdrawn, time: datetime) -> Refused | None:
        act = self.acts.get(ids.template_act_id(name, number))
        if act is None:
            return Refused("no such act is pending", ErrorReason.ERROR_REASON_ACT_NOT_FOUND)
        if act.state is not ActState.PENDING:
            return Refused(f"the act is {act.state.name.lower()}", ErrorReason.ERROR_REASON_ACT_CLOSED)
        self.acts[act.act_id] = replace(
            act,
            state=ActState.WITHDRAWN,
            settled_by=withdrawn.by,
            settle_reason=withdrawn.reason,
            settled_at=time,
        )
        return None

    def _confirm(self, said: ActConfirmation, time: datetime) -> None:
        self.acts[said.act_id] = replace(
            self.acts[said.act_id],
            state=ActState.FORCED if said.break_glass else ActState.CONFIRMED,
            settled_by=said.by,
            settle_reason=said.reason,
            settled_at=time,
            confirmation=said,
        )


def _parsed(name: str, body: bytes) -> Decided:
    return InstallationPolicy.FromString(body) if name == POLICY else Activation.FromString(body)


def act_on(name: str) -> Act.ValueType:
    """What deciding on this name is: changing the policy, or activating a version of a template."""
    return Act.ACT_CHANGE_POLICY if name == POLICY else Act.ACT_ACTIVATE


def bare(decided: Decided) -> Any:
    """A decision as it is asked for and confirmed: without time, request and confirmation."""
    copy: Message = type(decided)()
    copy.MergeFrom(decided)
    for field in ("time", "request", "confirmation"):
        copy.ClearField(field)
    return pack(copy)


def digest_of(name: str, act: Any) -> str:
    """The digest that a confirmation is bound to, as 64 hex digits: name, type and bytes of the decision."""
    return ids.act_digest(about=name, message_type=type_of(act), data=act.value)


def requested(decisions: TemplateDecisions, name: str, decided: Decided) -> TemplateActRequested:
    """The request for a second person, for what one person decided."""
    act = bare(decided)
    request = TemplateActRequested(act=act, by=decided.by, digest=digest_of(name, act), persons=PERSONS)
    request.confirm_within.FromTimedelta(decisions.confirm_within)
    return request
