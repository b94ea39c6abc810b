"""Messages of the payments demo, built by hand: what an agent can publish without its SDK."""

from __future__ import annotations

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.mesh.bus import Bus
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import DIVERGENCE_KIND_LATE_OUTCOME, Divergence, StepFailed
from payments.v1.payments_pb2 import LargeRefundGranted, RefundPaid, SmallRefundGranted


def outcome(
    flow_id: str,
    agent: str,
    step: str,
    message: Message,
    *,
    root: str,
    index: int = 0,
    total: int = 1,
    kind: Kind = Kind.EVENT,
) -> Entry:
    """An outcome of a step run of a refund, in the agent's name. `root` is the event that triggered the run."""
    event_id = ids.outcome_id(flow_id, step, root, 0, index)
    return _entry(flow_id, kind, agent, event_id, message, step=step, root=root, index=index, total=total)


def failed(flow_id: str, agent: str, step: str, *, root: str) -> Entry:
    """The first attempt at a step run failed, and may be tried again."""
    event_id = ids.attempt_id("failure", flow_id, step, root, 0, 1)
    message = StepFailed(error_class="Broken", text="it broke", retryable=True)
    return _entry(flow_id, Kind.FAILURE, agent, event_id, message, step=step, root=root)


def diverged(flow_id: str, agent: str, number: int = 0) -> Entry:
    """A divergence that an agent reports of itself."""
    message = Divergence(kind=DIVERGENCE_KIND_LATE_OUTCOME, event_id="e" * 32)
    return _entry(flow_id, Kind.DIVERGENCE, agent, f"{number:032x}", message)


async def publish(bus: Bus, *entries: Entry) -> None:
    """Publishes messages in order."""
    for entry in entries:
        await bus.publish(entry.address.subject, entry.body)


def _entry(
    flow_id: str,
    kind: Kind,
    agent: str,
    event_id: str,
    message: Message,
    *,
    step: str = "",
    root: str = "",
    index: int = 0,
    total: int = 1,
) -> Entry:
    event = Event(
        event_id=event_id,
        source=agent,
        flow_type="refund",
        flow_id=flow_id,
        template_version=1,
        step=step,
        root=root,
        attempt=1 if step else 0,
        output_index=index,
        output_total=total,
        causation_id=root,
        data=pack(message),
    )
    return Entry(Address("refund", flow_id, kind, agent, event_id, message.DESCRIPTOR.full_name), event)


def enriched_id(flow_id: str) -> str:
    """The id of the answer to the first step, which triggers `grant`."""
    return ids.outcome_id(flow_id, "enrich", ids.start_id(flow_id), 0, 0)


def granted_id(flow_id: str) -> str:
    """The id of the answer to the second step, which triggers `pay`."""
    return ids.outcome_id(flow_id, "grant", enriched_id(flow_id), 0, 0)


def small(
    units: int = 999, *, nanos: int = 0, currency: str = "EUR", account: str = "acct-0001", chargeback: str = "cb-1"
) -> SmallRefundGranted:
    """A grant that needs no approval."""
    amount = Money(currency_code=currency, units=units, nanos=nanos)
    return SmallRefundGranted(chargeback_id=chargeback, account_id=account, amount=amount, email="eve@example.com")


def large(units: int, *, chargeback: str = "cb-1", account: str = "acct-0001") -> LargeRefundGranted:
    """A grant that two people have to approve."""
    amount = Money(currency_code="EUR", units=units)
    return LargeRefundGranted(chargeback_id=chargeback, account_id=account, amount=amount, email="eve@example.com")


def paid(
    units: int = 999, *, currency: str = "EUR", account: str = "acct-0001", chargeback: str = "cb-1"
) -> RefundPaid:
    """The answer of the ledger."""
    amount = Money(currency_code=currency, units=units)
    return RefundPaid(
        chargeback_id=chargeback, account_id=account, amount=amount, transfer_id="t-1", email="eve@example.com"
    )
