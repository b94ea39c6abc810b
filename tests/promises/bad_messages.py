"""Messages that are not what they should be, on every subject that an agent may write."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.mesh.permissions import User
from handrail.mesh.template import STEP_COMPLETED, Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import TYPE_URL, pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1 import failure_pb2 as failure
from handrail.v1.event_pb2 import Event
from payments.v1 import payments_pb2 as payments

_EURO = Money(currency_code="EUR", units=5)
_EVENT: dict[str, typing.Any] = {"chargeback_id": "cb-1", "account_id": "acc-1", "amount": _EURO}
_KNOWN = {**_EVENT, "email": "kim@example.com"}

SAMPLES: dict[str, Message] = {
    message.DESCRIPTOR.full_name: message
    for message in (
        payments.ChargebackReceived(**_EVENT),
        payments.ChargebackEnriched(risk=payments.RISK_LOW, **_KNOWN),
        payments.SmallRefundGranted(**_KNOWN),
        payments.LargeRefundGranted(**{**_KNOWN, "amount": Money(currency_code="EUR", units=5000)}),
        payments.RefundPaid(transfer_id="t-1", **_KNOWN),
        payments.RefundReversed(chargeback_id="cb-1", transfer_id="t-1", reversal_id="r-1"),
        payments.CustomerNotified(chargeback_id="cb-1", outcome=payments.OUTCOME_REFUNDED, message_id="m-1"),
        failure.StepCompleted(),
        failure.StepFailed(error_class="Broken", text="it broke", retryable=True),
        failure.StepNotStarted(text="halted"),
        failure.StepProgress(counter=1),
        failure.Divergence(kind=failure.DIVERGENCE_KIND_LATE_OUTCOME, event_id="e" * 32),
    )
}
"""A message of each type with nothing wrong in it."""

_DERIVED = (Kind.EVENT, Kind.PROPOSAL, Kind.UNDONE)
"""Kinds whose id follows from the envelope."""


@dataclass(frozen=True)
class Bad:
    """A message, what is wrong with it, and the reason with which it has to come into quarantine."""

    what: str
    subject: str
    body: bytes
    reason: str

    @property
    def label(self) -> str:
        """For a failing test."""
        return f"{self.what} on {self.subject[:160]}"


@dataclass(frozen=True)
class Writable:
    """One kind of message that an agent's permissions let it publish: `flow.<type>.*.<kind>.<agent>.*.<message>`."""

    kind: Kind
    agent: str
    message_type: str


def writable(user: User) -> list[Writable]:
    """What a user may write into the FLOW stream, taken from its permissions."""
    found = []
    for pattern in user.publish:
        tokens = pattern.split(".", 6)
        if tokens[0] == "flow":
            assert (tokens[2], tokens[5], tokens[4]) == ("*", "*", user.name), pattern
            found.append(Writable(Kind(tokens[3]), user.name, tokens[6]))
    return found


class Forger:
    """Makes bad messages for one flow type; each has roots and ids of its own, so that it takes nobody's place."""

    def __init__(self, template: Template, max_payload: int) -> None:
        self._template = template
        self._max_payload = max_payload
        self._numbers = count(1)

    def bad(self, what: Writable, flow_id: str) -> Iterator[Bad]:
        """Everything that can be wrong with such a message of this flow, which runs and is at version 1."""
        yield from self._unreadable(what, flow_id)
        yield from self._misaddressed(what, flow_id)
        yield from self._misfitting(what, flow_id)

    def fresh(self) -> str:
        """An id that nothing has."""
        return f"{next(self._numbers):032x}"

    def _unreadable(self, what: Writable, flow_id: str) -> Iterator[Bad]:
        subject, body = self._good(what, flow_id)
        yield Bad("no protobuf", subject, b"\xff\xff\xff", "MALFORMED")
        subject, body = self._good(what, flow_id)
        yield Bad("cut short", subject, body[:-3], "MALFORMED")
        subject, _ = self._good(what, flow_id)
        yield Bad("nothing at all", subject, b"", "WRONG_ADDRESS")
        # Not in the flow: everybody who reads that would have to read these too.
        subject, _ = self._good(what, self.fresh())
        yield Bad("as large as the broker takes", subject, bytes(self._max_payload), "MALFORMED")

    def _misaddressed(self, what: Writable, flow_id: str) -> Iterator[Bad]:
        body: bytes
        for field, value in (
            ("flow_id", self.fresh()),
            ("flow_type", "loan"),
            ("source", "somebody"),
            ("event_id", self.fresh()),
            ("event_id", "no.id at all"),
        ):
            subject, body = self._good(what, flow_id)
            event = Event.FromString(body)
            setattr(event, field, value)
            yield Bad(f"another {field}", subject, event.SerializeToString(), "WRONG_ADDRESS")
        subject, body = self._good(what, flow_id)
        event = Event.FromString(body)
        event.data.type_url = TYPE_URL + "payments.v1.Money"
        yield Bad("another type", subject, event.SerializeToString(), "WRONG_ADDRESS")
        for label, token in (("a flow id of 3,000 characters", "x" * 3000), ("an umlaut", "ü"), ("a wildcard", "*")):
            _, body = self._good(what, flow_id)
            subject = f"flow.{self._template.name}.{token}.{what.kind}.{what.agent}.{self.fresh()}.{what.message_type}"
            yield Bad(f"{label} for a flow id", subject, body, "WRONG_ADDRESS")
            _, body = self._good(what, flow_id)
            subject = f"flow.{self._template.name}.{flow_id}.{what.kind}.{what.agent}.{token}.{what.message_type}"
            yield Bad(f"{label} for an event id", subject, body + bytes([0x70, 1]), "WRONG_ADDRESS")

    def _misfitting(self, what: Writable, flow_id: str) -> Iterator[Bad]:
        broken = self._contract_breaking(what.message_type)
        if broken is not None:
            yield Bad("breaks its contract", *self._good(what, flow_id, data=pack(broken)), "CONTRACT_VIOLATION")
        data = Any(type_url=TYPE_URL + what.message_type, value=b"\xff\xff")
        yield Bad("data that is not of its type", *self._good(what, flow_id, data=data), "MALFORMED")
        begins = not self._step(what)
        reason = "TEMPLATE_NOT_FOUND" if begins else "WRONG_VERSION"
        for version in (0, 99, 2**32 - 1):
            yield Bad(f"version {version}", *self._good(what, flow_id, version=version), reason)
        if what.kind in _DERIVED:
            subject, body = self._good(what, flow_id, event_id=self.fresh())
            yield Bad("an id that follows from nothing", subject, body, "WRONG_EVENT_ID")
        if not begins:
            yield Bad("of no flow", *self._good(what, self.fresh()), "FLOW_NOT_FOUND")
        if what.kind in (Kind.EVENT, Kind.PROPOSAL):
            other = next(step.name for step in self._template.steps.values() if step.agent != what.agent)
            yield Bad("for another agent's step", *self._good(what, flow_id, step=other), "WRONG_AGENT")

    def _good(
        self,
        what: Writable,
        flow_id: str,
        *,
        step: str | None = None,
        version: int = 1,
        event_id: str = "",
        data: Any | None = None,
    ) -> tuple[str, bytes]:
        """A message that says what it has to say of itself, as subject and bytes."""
        step = self._step(what) if step is None else step
        if not step:
            flow_id = self.fresh()  # a flow has one first event
        root = self.fresh() if step else ""
        if not event_id:
            match what.kind:
                case Kind.EVENT | Kind.PROPOSAL:
                    event_id = ids.outcome_id(flow_id, step, root, 0, 0)
                case Kind.UNDONE:
                    event_id = ids.undone_id(flow_id, root)
                case _:
                    event_id = self.fresh()
        event = Event(
            event_id=event_id,
            source=what.agent,
            flow_type=self._template.name,
            flow_id=flow_id,
            template_version=version,
            step=step,
            root=root,
            attempt=1 if step else 0,
            output_total=1,
            data=data or pack(SAMPLES[what.message_type]),
        )
        address = Address(self._template.name, flow_id, what.kind, what.agent, event_id, what.message_type)
        return address.subject, event.SerializeToString()

    def _step(self, what: Writable) -> str:
        """A step that may answer so; empty for the first event of a flow."""
        if what.message_type in self._template.starts_with:
            return ""
        steps = [step for step in self._template.steps.values() if step.agent == what.agent]
        fitting = [step for step in steps if what.message_type in step.emits]
        # An agent that only begins flows may still report divergences.
        return (fitting or steps or list(self._template.steps.values()))[0].name

    def _contract_breaking(self, message_type: str) -> Message | None:
        if message_type == STEP_COMPLETED:
            return None  # it has no field, and no rule
        contracts = self._template.contracts
        empty = contracts.message_class(message_type)()
        if contracts.violations(empty):
            return empty
        return contracts.message_class(message_type)(text="x" * 5000)
