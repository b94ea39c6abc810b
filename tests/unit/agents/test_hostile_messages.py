"""What agents do with messages that are not what they should be: quarantine with the bytes, no handler, no silence."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from google.protobuf.any_pb2 import Any
from google.type.money_pb2 import Money

from handrail.agents import Agent, Context
from handrail.coordinator.decide import votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.testing import World
from handrail.v1.decision_pb2 import ApprovalRefused
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import Quarantined, StepFailed
from payments.v1.payments_pb2 import ChargebackReceived, CustomerNotified, LargeRefundGranted, RefundPaid
from tests.support.agents import AMOUNT, CHAIN, Chain, enriched, notified, paid, received, template

FLOW_ID = "0123456789abcdef" * 2
START = ids.start_id(FLOW_ID)

GATED = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: grant, agent: refunds, after: [payments.v1.ChargebackReceived], emits: [payments.v1.LargeRefundGranted],
     effect: NONE, timeout: 3600s}
  - {name: pay, agent: ledger, after: [payments.v1.LargeRefundGranted], emits: [payments.v1.RefundPaid],
     effect: NONE, timeout: 30s}
  - {name: tell, agent: notification, after: [payments.v1.RefundPaid], emits: [payments.v1.CustomerNotified],
     effect: NONE, timeout: 30s}
gates:
  - {name: large, on: payments.v1.LargeRefundGranted, approvers: {roles: [finance]}, expires_after: 3600s}
"""


def first(flow_id: str = FLOW_ID, *, version: int = 1) -> tuple[str, bytes]:
    """The first event of a flow, by hand."""
    return message(Kind.EVENT, "detection", received(), flow_id=flow_id, step="", root="", version=version)


def message(
    kind: Kind,
    agent: str,
    data: object,
    *,
    step: str,
    root: str,
    flow_id: str = FLOW_ID,
    version: int = 1,
    source: str = "",
    event_id: str = "",
    index: int = 0,
    total: int = 1,
) -> tuple[str, bytes]:
    """Any message of a flow, as subject and bytes."""
    packed = data if isinstance(data, Any) else pack(data)  # type: ignore[arg-type]
    event_id = event_id or ids.outcome_id(flow_id, step, root, 0, index)
    name = packed.type_url.rpartition("/")[2]
    event = Event(
        event_id=event_id,
        source=source or agent,
        flow_type="refund",
        flow_id=flow_id,
        template_version=version,
        step=step,
        root=root,
        attempt=1 if step else 0,
        output_index=index,
        output_total=total,
        data=packed,
    )
    return Address("refund", flow_id, kind, agent, event_id, name).subject, event.SerializeToString()


def reasons(quarantined: list[Quarantined], reporter: str) -> list[str]:
    return [ErrorReason.Name(q.reason).removeprefix("ERROR_REASON_") for q in quarantined if q.reporter == reporter]


MALFORMED = [
    (f"flow.refund.{FLOW_ID}.event.enrichment.{'a' * 32}.payments.v1.ChargebackEnriched", b"\xff\xff", "MALFORMED"),
    (f"flow.refund.{FLOW_ID}.event.enrichment.{'a' * 32}.payments.v1.ChargebackEnriched", b"", "WRONG_ADDRESS"),
    (f"flow.refund.{FLOW_ID}.event.enrichment.short.payments.v1.ChargebackEnriched", b"", "WRONG_ADDRESS"),
    (f"flow.refund.nowhere.event.enrichment.{'a' * 32}.payments.v1.ChargebackEnriched", b"", "WRONG_ADDRESS"),
    (*message(Kind.EVENT, "enrichment", enriched(), step="enrich", root=START, event_id="b" * 32), "WRONG_EVENT_ID"),
    (*message(Kind.EVENT, "enrichment", enriched(), step="enrich", root=START, source="other"), "WRONG_ADDRESS"),
]


@pytest.mark.parametrize("subject,body,reason", MALFORMED, ids=[f"{i}-{r}" for i, (_, _, r) in enumerate(MALFORMED)])
async def test_p5_what_can_not_be_read_is_quarantined_with_its_bytes(subject: str, body: bytes, reason: str) -> None:
    chain = Chain()
    async with World(templates=[template()], agents=[chain.ledger]) as world:
        await world.publish(*first())
        await world.publish(subject, body)
        assert reasons(world.quarantined, "ledger") == [reason]
        [quarantined] = [q for q in world.quarantined if q.reporter == "ledger"]
        assert quarantined.body == body
        assert quarantined.subject == subject
        assert quarantined.stream_sequence == 2
        assert quarantined.detail
    assert chain.book.calls == []


async def test_p6_a_gated_type_as_a_plain_event_is_quarantined_and_nobody_acts_on_it() -> None:
    ledger, notification = Agent("ledger"), Agent("notification")
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> LargeRefundGranted:
        raise NotImplementedError

    @ledger.on(LargeRefundGranted)
    async def pay(event: LargeRefundGranted) -> RefundPaid:
        raise AssertionError("nobody approved this")

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid) -> CustomerNotified:
        return notified()

    large = LargeRefundGranted(chargeback_id="cb-1", account_id="acc-1", amount=AMOUNT, email="kim@example.com")
    large.amount.units = 5000
    async with World(templates=[template(GATED)], agents=[refunds, ledger, notification]) as world:
        world.stop_agent("refunds")
        await world.publish(*first())
        await world.publish(*message(Kind.EVENT, "refunds", large, step="grant", root=START))
        assert reasons(world.quarantined, "ledger") == ["GATE_BYPASSED"]
        assert "VOID" in world.flow("refund", FLOW_ID).story


LIMITED = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: pay, agent: refunds, after: [payments.v1.ChargebackReceived], emits: [payments.v1.RefundPaid],
     effect: NONE, timeout: 30s, max_outputs: 2}
  - {name: tell, agent: notification, after: [payments.v1.RefundPaid], emits: [payments.v1.CustomerNotified],
     effect: UNDOABLE, timeout: 30s, undo: {timeout: 30s}}
"""
RULED = """
rules:
  - {name: dear, on: [payments.v1.RefundPaid], when: event.amount.units > flow.first.amount.units, then: ESCALATE}
"""


def payer_and_teller(told: list[str], answer: list[RefundPaid]) -> tuple[Agent, Agent]:
    refunds, notification = Agent("refunds"), Agent("notification")

    @refunds.on(ChargebackReceived)
    async def pay(event: ChargebackReceived) -> list[RefundPaid]:
        return answer

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid, ctx: Context) -> CustomerNotified:
        told.append(ctx.idempotency_key)
        return notified()

    @notification.undoes(CustomerNotified)
    async def untell(event: CustomerNotified) -> None: ...

    return refunds, notification


@pytest.mark.parametrize("outputs", [2, 3])
async def test_p5_more_outputs_than_a_step_may_answer_with_are_a_failure(outputs: int) -> None:
    told: list[str] = []
    async with World(templates=[template(LIMITED)], agents=payer_and_teller(told, [paid()] * outputs)) as world:
        flow = await world.start("refund", received(), by="detection")
        assert len(told) == (2 if outputs == 2 else 0)
        if outputs == 3:
            [failure] = flow.recorded(StepFailed)
            assert failure.text.endswith("step pay of refund version 1 may answer with at most 2")
            assert not failure.retryable


async def test_p5_and_none_of_those_that_are_on_the_stream_all_the_same_is_acted_on() -> None:
    told: list[str] = []
    async with World(templates=[template(LIMITED)], agents=payer_and_teller(told, [])) as world:
        world.stop_agent("refunds")
        await world.publish(*first())
        for index in range(3):
            await world.publish(*message(Kind.EVENT, "refunds", paid(), step="pay", root=START, index=index, total=3))
        await world.settle()
        assert reasons(world.quarantined, "notification") == ["CONTRACT_VIOLATION"] * 3
    assert told == []


@pytest.mark.parametrize("units", [250, 251])
async def test_p6_an_effect_of_what_a_rule_trips_at_is_not_begun(units: int) -> None:
    told: list[str] = []
    dear = paid()
    dear.amount.units = units
    async with World(templates=[template(LIMITED + RULED)], agents=payer_and_teller(told, [dear])) as world:
        world.stop_coordinator()
        flow = await world.start("refund", received(), by="detection")
        assert len(told) == (1 if units == 250 else 0)
        if units == 250:
            assert flow.status == "COMPLETED"


async def test_a_refusal_that_came_too_late_is_dropped_and_breaks_no_contract() -> None:
    refunds, ledger, notification = Agent("refunds"), Agent("ledger"), Agent("notification")
    refused = "after: [payments.v1.RefundPaid, handrail.v1.ApprovalRefused]"

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> LargeRefundGranted:
        large = Money(currency_code="EUR", units=1500)
        return LargeRefundGranted(chargeback_id="cb-1", account_id="acc-1", amount=large, email="kim@example.com")

    @ledger.on(LargeRefundGranted)
    async def pay(event: LargeRefundGranted) -> RefundPaid:
        return paid()

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid) -> CustomerNotified:
        return notified()

    @notification.on(ApprovalRefused)
    async def apologise(event: ApprovalRefused) -> CustomerNotified:
        raise AssertionError("it was approved")

    waiting = template(GATED.replace("after: [payments.v1.RefundPaid]", refused))
    async with World(templates=[waiting], agents=[refunds, ledger, notification]) as world:
        flow = await world.start("refund", received(), key="cb-1")
        [asked] = flow.approvals
        await world.approve(flow, voter="anna", roles=["finance"])
        no = partial(votes.vote, approval_id=asked.recorded.event_id, digest=asked.digest, approve=False)
        ben = Caller("ben", of_roles(["finance"]))
        with pytest.raises(HandrailError, match="released"):
            await world.coordinator.operator_actions.record("refund", flow.flow_id, no, caller=ben)
        await world.settle()
        assert flow.status == "COMPLETED"
        assert not world.quarantined


async def test_p6_a_gated_type_is_looked_at_twice_even_if_it_claims_a_version_without_the_gate() -> None:
    ledger, notification, refunds = Agent("ledger"), Agent("notification"), Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> LargeRefundGranted:
        raise NotImplementedError

    @ledger.on(LargeRefundGranted)
    async def pay(event: LargeRefundGranted) -> RefundPaid:
        raise AssertionError("nobody approved this")

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid) -> CustomerNotified:
        return notified()

    open_version = GATED[: GATED.index("gates:")].replace("version: 1", "version: 2")
    large = LargeRefundGranted(chargeback_id="cb-1", account_id="acc-1", amount=AMOUNT, email="kim@example.com")
    large.amount.units = 5000
    templates = [template(GATED), template(open_version)]
    async with World(templates=templates, agents=[refunds, ledger, notification]) as world:
        world.stop_agent("refunds")
        await world.publish(*first(version=1))
        await world.publish(*message(Kind.EVENT, "refunds", large, step="grant", root=START, version=2))
        assert reasons(world.quarantined, "ledger") == ["WRONG_VERSION"]


async def test_p6_an_agent_that_speaks_for_another_is_not_listened_to() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=[chain.ledger, chain.notification]) as world:
        await world.publish(*first())
        await world.publish(*message(Kind.EVENT, "notification", enriched(), step="enrich", root=START))
        assert reasons(world.quarantined, "ledger") == ["WRONG_AGENT"]
    assert chain.book.calls == []


async def test_p6_an_agent_that_may_not_start_a_flow_starts_none() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        await world.publish(*message(Kind.EVENT, "ledger", received(), step="", root=""))
        assert reasons(world.quarantined, "enrichment") == ["WRONG_AGENT"]


async def test_p5_a_version_that_nobody_knows_is_handed_back_at_first_and_then_quarantined() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        await world.publish(*first(version=7))
        assert reasons(world.quarantined, "enrichment") == []
        await world.advance(timedelta(minutes=5))
        assert reasons(world.quarantined, "enrichment") == ["TEMPLATE_NOT_FOUND"]


async def test_a_version_that_is_stored_a_little_later_is_waited_for() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_coordinator()
        await world.publish(*first(version=2))
        await world.put(template(CHAIN, ("version: 1", "version: 2")))
        await world.advance(timedelta(seconds=5))
        assert world.flow("refund", FLOW_ID).status == "COMPLETED"
        assert world.quarantined == []


async def test_p5_an_outcome_that_nothing_triggered_does_not_reach_an_irreversible_step() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        await world.publish(*first())
        await world.publish(*message(Kind.EVENT, "ledger", paid(), step="pay", root="c" * 32))
        assert len(chain.outbox) == 1, "only the flow's own payment was told"


async def test_p5_inbound_validation_quarantines_the_event_and_fails_the_step() -> None:
    ledger = Agent("ledger", validate_inbound=True)
    chain = Chain()
    for handler in chain.ledger.handlers:
        declare = ledger.on if handler.purpose.name == "STEP" else ledger.undoes
        declare(*handler.inputs.values())(handler.function)

    broken = enriched()
    broken.email = "nobody"
    async with World(templates=[template()], agents=[ledger, chain.notification]) as world:
        world.stop_coordinator()
        await world.publish(*first())
        await world.publish(*message(Kind.EVENT, "enrichment", broken, step="enrich", root=START))
        assert reasons(world.quarantined, "ledger") == ["CONTRACT_VIOLATION"]
        assert "email" in world.quarantined[0].detail
        [failure] = world.flow("refund", FLOW_ID).recorded(StepFailed)
        assert failure.error_class == "CONTRACT_VIOLATION"
        assert not failure.retryable
        assert not failure.outcome_unknown, "the handler did not run"
    assert chain.book.calls == []


async def test_p5_data_of_another_type_than_it_says_is_quarantined_and_the_step_fails() -> None:
    chain = Chain()
    lie = Any(type_url="type.googleapis.com/payments.v1.ChargebackEnriched", value=b"\x0a\xff\xff")
    async with World(templates=[template()], agents=[chain.ledger, chain.notification]) as world:
        world.stop_coordinator()
        await world.publish(*first())
        await world.publish(*message(Kind.EVENT, "enrichment", lie, step="enrich", root=START))
        assert reasons(world.quarantined, "ledger") == ["MALFORMED"]
    assert chain.book.calls == []


async def test_a_command_that_is_no_longer_wanted_is_dropped() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        flow = await world.start("refund", received(), by="detection")
        calls = len(chain.book.calls)
        fact = next(r for r in flow.history if r.type.endswith("ChargebackEnriched"))
        paid_fact = next(r for r in flow.history if r.type.endswith("RefundPaid"))
        for kind, recorded, root in ((Kind.RETRY, fact, fact.event_id), (Kind.UNDO, paid_fact, paid_fact.event_id)):
            event = Event()
            event.CopyFrom(recorded.event)
            event.source, event.step, event.root, event.run, event.attempt = "coordinator", "pay", root, 0, 1
            event.event_id = ids.attempt_id(kind.value, flow.flow_id, "pay", root, 0, 1)
            address = Address("refund", flow.flow_id, kind, "ledger", event.event_id, recorded.type)
            await world.publish(address.subject, event.SerializeToString())
        assert len(chain.book.calls) == calls
        assert flow.status == "COMPLETED"
