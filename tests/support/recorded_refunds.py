"""Many refunds at once, as the payments demo records them: real ids and real contracts, but no running agents.

Record them while no coordinator is running: it would make decisions on them.

Amounts, risks and people's answers are drawn by seed. The flows are interleaved as much as possible: the first message
of each is stored before the second of any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from demos.payments import MESSAGES
from handrail.mesh.bus import NatsBus
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.decision_pb2 import APPROVAL_CAUSE_VOTE, ApprovalGiven, ApprovalRefused, ApprovalRequested, GateRequest
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import (
    OUTCOME_REFUNDED,
    OUTCOME_REFUSED,
    RISK_HIGH,
    RISK_LOW,
    RISK_MEDIUM,
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
    SmallRefundGranted,
)

REFUND = Path("agents/demos/payments/refund.yaml")

_IN_FLIGHT = 2_000
_EMAIL = "kim@example.com"

Build = Callable[[int], Entry]
"""Makes a message, given the sequence of the one before it in its flow."""


def refund_template(text: str | None = None) -> Template:
    """The demo's template, optionally with its text changed."""
    contracts = Contracts.from_messages(MESSAGES)
    return Template.compile(load_yaml(text if text is not None else REFUND.read_text()), contracts)


async def record(bus: NatsBus, number: int, *, seed: int, at_once: int = 0) -> int:
    """Stores this many refunds, `at_once` of them interleaved (0: all). Returns the number of messages."""
    draw = Random(seed)
    stored = 0
    for start in range(0, number, at_once or number):
        some = range(start, min(number, start + (at_once or number)))
        stored += await _store(bus, [history(f"cb-{seed}-{nth}", draw) for nth in some])
    return stored


class Asked(NamedTuple):
    """A refund that waits for people: its id, and what a vote names."""

    flow_id: str
    approval_id: str
    digest: str


async def record_asked(bus: NatsBus, number: int, *, seed: int, at_once: int = 500) -> list[Asked]:
    """Stores this many large refunds that wait for people: four messages each."""
    asked: list[Asked] = []
    for start in range(0, number, at_once):
        some = [_asked(f"asked-{seed}-{nth}") for nth in range(start, min(number, start + at_once))]
        await _store(bus, [history for history, _ in some])
        asked += [each for _, each in some]
    return asked


def small_refund(key: str) -> list[Entry]:
    """All messages of a refund that nobody has to approve."""
    common = _common(key, 10)
    first = _entry(ids.flow_id_from_key("refund", key), Kind.EVENT, "detection", ChargebackReceived(**common))
    known = _after(first, "enrich", "enrichment", ChargebackEnriched(**common, risk=RISK_LOW, email=_EMAIL))
    granted = _after(known, "grant", "refunds", SmallRefundGranted(**common, email=_EMAIL))
    return [first, known, granted, *(build(0) for build in _paid(granted, common))]


@dataclass
class _Flow:
    """One refund: its next messages, and the sequence of the last one."""

    messages: Iterator[Build]
    sequence: int = 0


async def _store(bus: NatsBus, histories: Sequence[Sequence[Build]]) -> int:
    waiting = [_Flow(iter(history)) for history in histories]
    stored = 0
    while waiting:
        for start in range(0, len(waiting), _IN_FLIGHT):
            stored += await _store_next(bus, waiting[start : start + _IN_FLIGHT])
        waiting = [flow for flow in waiting if flow.sequence]
    return stored


async def _store_next(bus: NatsBus, flows: Sequence[_Flow]) -> int:
    """Stores the next message of each flow; a flow without one gets sequence 0."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = 1

    def settle() -> None:
        nonlocal left
        left -= 1
        if not left and not done.done():
            done.set_result(None)

    def stored(flow: _Flow) -> Callable[[int | HandrailError], None]:
        def on_stored(outcome: int | HandrailError) -> None:
            if done.done():
                return
            if isinstance(outcome, HandrailError):
                done.set_exception(outcome)
            else:
                flow.sequence = outcome
                settle()

        return on_stored

    number = 0
    for flow in flows:
        build = next(flow.messages, None)
        if build is None:
            flow.sequence = 0
            continue
        entry = build(flow.sequence)
        left += 1
        number += 1
        bus.publish_nowait(entry.address.subject, entry.body, stored(flow))
    settle()
    await done
    return number


def history(key: str, draw: Random, *, flow_id: str = "") -> list[Build]:
    """The messages of one refund, in order. Its id follows from the key, unless it has one."""
    flow_id = flow_id or ids.flow_id_from_key("refund", key)
    units = int(10 ** draw.uniform(0, 3.7))
    common = _common(key, units)
    risk = draw.choices((RISK_LOW, RISK_MEDIUM, RISK_HIGH), (6, 3, 1))[0]
    first = _entry(flow_id, Kind.EVENT, "detection", ChargebackReceived(**common))
    known = _after(first, "enrich", "enrichment", ChargebackEnriched(**common, risk=risk, email=_EMAIL))
    if units < 1000:
        granted = _after(known, "grant", "refunds", SmallRefundGranted(**common, email=_EMAIL))
        return [_plain(first), _plain(known), _plain(granted), *_paid(granted, common)]
    proposed = _after(known, "grant", "refunds", LargeRefundGranted(**common, email=_EMAIL), kind=Kind.PROPOSAL)
    asked = [_plain(first), _plain(known), _plain(proposed), _request(proposed)]
    if draw.random() < 0.2:
        return [*asked, *_refused(proposed)]
    released = Entry(proposed.address._replace(kind=Kind.RELEASED), proposed.event)
    votes = [_vote(proposed, ApprovalGiven, voter) for voter in ("anna", "ben")]
    return [*asked, *votes, _plain(released), *_paid(proposed, common)]


def _common(key: str, units: int) -> dict[str, Any]:
    return {"chargeback_id": key, "account_id": "acct-1", "amount": Money(currency_code="EUR", units=units)}


def _asked(key: str) -> tuple[list[Build], Asked]:
    common = _common(key, 2000)
    first = _entry(ids.flow_id_from_key("refund", key), Kind.EVENT, "detection", ChargebackReceived(**common))
    known = _after(first, "enrich", "enrichment", ChargebackEnriched(**common, risk=RISK_LOW, email=_EMAIL))
    proposed = _after(known, "grant", "refunds", LargeRefundGranted(**common, email=_EMAIL), kind=Kind.PROPOSAL)
    event = proposed.event
    asked = Asked(event.flow_id, f"refund.{event.flow_id}.{event.event_id}", _digest(proposed))
    return [_plain(first), _plain(known), _plain(proposed), _request(proposed)], asked


def _paid(granted: Entry, common: dict[str, Any]) -> list[Build]:
    paid = _after(granted, "pay", "ledger", RefundPaid(**common, transfer_id="t-1", email=_EMAIL))
    told = CustomerNotified(chargeback_id="cb", outcome=OUTCOME_REFUNDED, message_id="m-1")
    return [_plain(paid), _plain(_after(paid, "notify", "notification", told))]


def _refused(proposed: Entry) -> list[Build]:
    told = CustomerNotified(chargeback_id="cb", outcome=OUTCOME_REFUSED, message_id="m-1")
    refusals: list[Entry] = []

    def refuse(based_on: int) -> Entry:
        refusals.append(_vote(proposed, ApprovalRefused, "anna")(based_on))
        return refusals[0]

    def tell(based_on: int) -> Entry:
        return _after(refusals[0], "notify", "notification", told)

    return [refuse, tell]


def _request(proposed: Entry) -> Build:
    gate = GateRequest(gate="large_refund", roles=["finance"], quorum=2, not_the_requester=True)
    request = ApprovalRequested(proposal_id=proposed.event.event_id, digest=_digest(proposed), gates=[gate])
    return lambda based_on: _decision(proposed, request, "", based_on)


def _vote(proposed: Entry, answer: type[Message], voter: str) -> Build:
    vote = answer(
        proposal_id=proposed.event.event_id,
        digest=_digest(proposed),
        voter=voter,
        roles=["finance"],
        cause=APPROVAL_CAUSE_VOTE,
    )
    return lambda based_on: _decision(proposed, vote, voter, based_on)


def _digest(proposed: Entry) -> str:
    event = proposed.event
    return ids.approval_digest(
        flow_id=event.flow_id,
        event_id=event.event_id,
        gates=["large_refund"],
        message_type=proposed.address.message_type,
        data=event.data.value,
    )


def _plain(entry: Entry) -> Build:
    return lambda based_on: entry


def _after(cause: Entry, step: str, agent: str, message: Message, *, kind: Kind = Kind.EVENT) -> Entry:
    return _entry(cause.event.flow_id, kind, agent, message, step=step, root=cause.event.event_id)


def _entry(flow_id: str, kind: Kind, agent: str, message: Message, *, step: str = "", root: str = "") -> Entry:
    event_id = ids.outcome_id(flow_id, step, root, 0, 0)
    event = _event(flow_id, event_id, agent, message)
    event.step, event.root, event.output_total, event.attempt = step, root, 1, 1 if step else 0
    return Entry(Address("refund", flow_id, kind, agent, event_id, message.DESCRIPTOR.full_name), event)


def _decision(proposed: Entry, message: Message, about: str, based_on: int) -> Entry:
    flow_id, name = proposed.event.flow_id, message.DESCRIPTOR.full_name
    event_id = ids.decision_id(flow_id, name, f"{proposed.event.event_id}{about}", based_on)
    event = _event(flow_id, event_id, COORDINATOR, message)
    event.based_on_sequence = based_on
    return Entry(Address("refund", flow_id, Kind.DECISION, COORDINATOR, event_id, name), event)


def _event(flow_id: str, event_id: str, source: str, message: Message) -> Event:
    return Event(
        event_id=event_id, source=source, flow_type="refund", flow_id=flow_id, template_version=1, data=pack(message)
    )
