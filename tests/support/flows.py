"""A small flow type for tests, with the demo's contracts: a chargeback arrives, is enriched, and the customer is
notified.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.template_pb2 import (
    EFFECT_IRREVERSIBLE,
    EFFECT_NONE,
    Approvers,
    FlowTemplate,
    Gate,
    Step,
    StoredTemplate,
)
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified, Outcome, Risk

RECEIVED, ENRICHED, NOTIFIED = (
    message.DESCRIPTOR.full_name for message in (ChargebackReceived, ChargebackEnriched, CustomerNotified)
)

FLOW_ID = "0123456789abcdef" * 2

_AMOUNT = Money(currency_code="EUR", units=250)


def received() -> ChargebackReceived:
    """The data of the first event of a flow."""
    return ChargebackReceived(chargeback_id="cb-1", account_id="acc-1", amount=_AMOUNT)


def enrichment(risk: Risk.ValueType = Risk.RISK_LOW) -> ChargebackEnriched:
    """The answer of the first step."""
    return ChargebackEnriched(
        chargeback_id="cb-1", account_id="acc-1", amount=_AMOUNT, risk=risk, email="kim@example.com"
    )


def told() -> CustomerNotified:
    """The answer of the second step."""
    return CustomerNotified(chargeback_id="cb-1", outcome=Outcome.OUTCOME_REFUNDED, message_id="m-1")


def template(
    name: str = "refund",
    version: int = 1,
    *,
    gated: bool = False,
    extra: Iterable[Step] = (),
    timeout: timedelta = timedelta(seconds=30),
    attempts: int = 0,
) -> Template:
    """Two steps, and the `extra` ones. `gated` adds a gate on the enriched chargeback, for the role finance, with a
    quorum of one. `timeout` and `attempts` are those of the first step.
    """
    proto = FlowTemplate(
        name=name,
        version=version,
        starts_with=[RECEIVED],
        started_by=["detection"],
        completes_with=[NOTIFIED],
        deadline=Duration(seconds=3600),
        steps=[
            Step(
                name="enrich",
                agent="enrichment",
                after=[RECEIVED],
                emits=[ENRICHED],
                effect=EFFECT_NONE,
            ),
            Step(
                name="notify",
                agent="notification",
                after=[ENRICHED],
                emits=[NOTIFIED],
                effect=EFFECT_IRREVERSIBLE,
                timeout=Duration(seconds=30),
            ),
        ],
    )
    proto.steps[0].timeout.FromTimedelta(timeout)
    if attempts:
        proto.steps[0].retry.max_attempts = attempts
    proto.steps.extend(extra)
    if gated:
        approvers = Approvers(roles=["finance"], quorum=1)
        proto.gates.append(Gate(name="look", on=ENRICHED, approvers=approvers, expires_after=Duration(seconds=600)))
    return Template.compile(proto, Contracts.from_messages([ChargebackReceived, ChargebackEnriched, CustomerNotified]))


def stored(template: Template) -> StoredTemplate:
    """A template as PutTemplate stores it."""
    return StoredTemplate(
        template=template.proto, descriptors=template.descriptor_set, digest=template.digest, put_by="olga"
    )


def start(flow_id: str = FLOW_ID, *, flow_type: str = "refund", message: Message | None = None) -> Entry:
    """The first event of a flow."""
    return _entry(flow_type, flow_id, Kind.EVENT, "detection", message or received(), step="", root="")


def enriched(
    flow_id: str = FLOW_ID, *, flow_type: str = "refund", kind: Kind = Kind.EVENT, message: Message | None = None
) -> Entry:
    """The outcome of the first step."""
    root = ids.start_id(flow_id)
    return _entry(flow_type, flow_id, kind, "enrichment", message or enrichment(), step="enrich", root=root)


def failed(text: str, flow_id: str = FLOW_ID, *, flow_type: str = "refund") -> Entry:
    """The first attempt of the first step failed for good."""
    root = ids.start_id(flow_id)
    message = StepFailed(error_class="Refused", text=text)
    event_id = ids.attempt_id("failure", flow_id, "enrich", root, 0, 1)
    address = Address(flow_type, flow_id, Kind.FAILURE, "enrichment", event_id, StepFailed.DESCRIPTOR.full_name)
    said = event(address, message)
    said.step, said.root, said.attempt = "enrich", root, 1
    return Entry(address, said)


def notified(flow_id: str = FLOW_ID, *, flow_type: str = "refund") -> Entry:
    """The outcome of the second step, which completes the flow."""
    root = enriched(flow_id).address.event_id
    return _entry(flow_type, flow_id, Kind.EVENT, "notification", told(), step="notify", root=root)


def decision(
    message: Message, *, flow_id: str = FLOW_ID, flow_type: str = "refund", about: str = "", based_on: int = 0
) -> Entry:
    """A decision by the coordinator."""
    name = message.DESCRIPTOR.full_name
    event_id = ids.decision_id(flow_id, name, about, based_on)
    address = Address(flow_type, flow_id, Kind.DECISION, COORDINATOR, event_id, name)
    return Entry(address, event(address, message, based_on_sequence=based_on))


def _entry(flow_type: str, flow_id: str, kind: Kind, agent: str, message: Message, *, step: str, root: str) -> Entry:
    event_id = ids.outcome_id(flow_id, step, root, 0, 0)
    address = Address(flow_type, flow_id, kind, agent, event_id, message.DESCRIPTOR.full_name)
    said = event(address, message)
    said.step, said.root, said.output_total = step, root, 1
    said.attempt = 1 if step else 0
    return Entry(address, said)


def event(address: Address, message: Message, *, based_on_sequence: int = 0) -> Event:
    """The envelope of a message at an address."""
    return Event(
        event_id=address.event_id,
        source=address.agent,
        flow_type=address.flow_type,
        flow_id=address.flow_id,
        template_version=1,
        based_on_sequence=based_on_sequence,
        data=pack(message),
    )
