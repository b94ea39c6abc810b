"""The stories of the load: each flow has a lot that determines what agents and people do, and how it must end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.v1.decision_pb2 import FlowStatus
from tests.support.agents import MESSAGES

FLOW_TYPE = "refund"
SMALL, LARGE = 250, 2500

TEMPLATE = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 1800s
steps:
  - {name: enrich, agent: desk, after: [payments.v1.ChargebackReceived], emits: [payments.v1.ChargebackEnriched],
     effect: NONE, timeout: TIMEOUT, retry: {max_attempts: 3, initial_backoff: 0.5s}, on_failure: ESCALATE}
  - {name: grant, agent: desk, after: [payments.v1.ChargebackEnriched],
     emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted], effect: NONE, timeout: TIMEOUT,
     retry: {max_attempts: 5, initial_backoff: 0.5s}}
  - {name: pay, agent: ledger, after: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted],
     emits: [payments.v1.RefundPaid], effect: UNDOABLE, timeout: TIMEOUT, on_failure: COMPENSATE,
     retry: {max_attempts: 5, initial_backoff: 0.5s},
     undo: {timeout: TIMEOUT, retry: {max_attempts: 3, initial_backoff: 0.5s}, emits: [payments.v1.RefundReversed]}}
  - {name: notify, agent: desk, after: [payments.v1.RefundPaid, handrail.v1.ApprovalRefused],
     emits: [payments.v1.CustomerNotified], effect: IRREVERSIBLE, timeout: TIMEOUT,
     retry: {max_attempts: 5, initial_backoff: 0.5s}, on_failure: COMPENSATE}
gates:
  - {name: large_refund, on: payments.v1.LargeRefundGranted, when: event.amount.units >= 1000,
     approvers: {roles: [finance], quorum: 2, not_the_requester: true}, expires_after: 600s, on_expiry: REJECT}
rules:
  - {name: risky, on: [payments.v1.ChargebackEnriched], when: event.risk == payments.v1.Risk.RISK_HIGH, then: ESCALATE}
"""


class Lot(StrEnum):
    """What happens in a flow."""

    PLAIN = "plain"
    """Nothing special."""
    LARGE = "large"
    """Two people approve."""
    REFUSED = "refused"
    """One person rejects."""
    FLAKY = "flaky"
    """The ledger fails twice, then pays."""
    HOPELESS = "hopeless"
    """The customer can't be notified: the refund is undone."""
    STUBBORN = "stubborn"
    """The same, but the undo fails until a person retries it."""
    BROKEN = "broken"
    """Enrichment fails until a person retries it."""
    RISKY = "risky"
    """A rule holds the flow, and a person lets it continue."""
    CANCEL = "cancel"
    """A person cancels the flow at any time, possibly right at its end."""
    BACK = "back"
    """A person compensates the flow, running or completed."""


@dataclass(frozen=True, slots=True)
class Part:
    """The frequency of a lot, and how its flows may end."""

    weight: int
    ends: frozenset[FlowStatus.ValueType]


_COMPLETED = FlowStatus.FLOW_STATUS_COMPLETED
_COMPENSATED = FlowStatus.FLOW_STATUS_COMPENSATED
_CANCELLED = FlowStatus.FLOW_STATUS_CANCELLED

PARTS = {
    Lot.PLAIN: Part(40, frozenset({_COMPLETED})),
    Lot.LARGE: Part(10, frozenset({_COMPLETED})),
    Lot.REFUSED: Part(5, frozenset({_COMPLETED})),
    Lot.FLAKY: Part(8, frozenset({_COMPLETED})),
    Lot.HOPELESS: Part(8, frozenset({_COMPENSATED})),
    Lot.STUBBORN: Part(4, frozenset({_COMPENSATED})),
    Lot.BROKEN: Part(5, frozenset({_COMPLETED})),
    Lot.RISKY: Part(5, frozenset({_COMPLETED})),
    Lot.CANCEL: Part(15, frozenset({_COMPLETED, _CANCELLED})),
    Lot.BACK: Part(8, frozenset({_COMPLETED, _COMPENSATED})),
}


def draw(chance: random.Random) -> Lot:
    """Draws a lot for the next flow."""
    return chance.choices(list(PARTS), weights=[part.weight for part in PARTS.values()])[0]


def lot_of(chargeback_id: str) -> Lot:
    """The lot encoded in an id."""
    return Lot(chargeback_id.partition("-")[0])


def template(timeout_seconds: int) -> Template:
    """The flow type, with this timeout for every step and undo."""
    text = TEMPLATE.replace("TIMEOUT", f"{timeout_seconds}s")
    return Template.compile(load_yaml(text), Contracts.from_messages(MESSAGES))
