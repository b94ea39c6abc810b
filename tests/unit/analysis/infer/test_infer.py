"""Templates inferred from traffic have the structure of those that the traffic followed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from google.type.money_pb2 import Money

from demos.payments import MESSAGES, TEMPLATES, detection, enrichment, ledger, notification, refunds, settings
from handrail.analysis.check.typecheck import check
from handrail.analysis.infer import Traffic, infer
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.mesh.template.yaml_writer import to_text
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World, load_template
from handrail.v1.template_pb2 import (
    EFFECT_NONE,
    EFFECT_UNDOABLE,
    EXPIRY_ACTION_REJECT,
    EXPIRY_ACTION_WAIT,
    FAILURE_ACTION_COMPENSATE,
    FAILURE_ACTION_ESCALATE,
    REJECT_ACTION_COMPENSATE,
    REJECT_ACTION_CONTINUE,
    Finding,
    FlowTemplate,
    Gate,
    Step,
)
from payments.v1.payments_pb2 import ChargebackReceived
from tests.support.orders import begun, contracts, emit, granted, load, make, paid, proposal_of, reserved, run_of, sent
from tests.support.simulation import Simulation
from tests.support.traffic import structure, traffic_of

HOURS = timedelta(hours=5)


def codes(findings: Iterable[Finding]) -> set[str]:
    return {found.code for found in findings}


def step_of(template: FlowTemplate, name: str) -> Step:
    (step,) = (step for step in template.steps if step.name == name)
    return step


@pytest.fixture
async def refund_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FlowView]:
    """What the payments demo's agents make of small and large refunds, a refused one, and one nobody can be told of."""
    monkeypatch.setenv(settings.LEDGER, str(tmp_path / "ledger.sqlite"))
    monkeypatch.setenv(settings.OUTBOX, str(tmp_path / "outbox.jsonl"))
    monkeypatch.setenv(settings.PER_SECOND, "1e9")
    monkeypatch.setenv(settings.UNDELIVERABLE, json.dumps(["cb-60"]))
    ledger.book.cache_clear()
    notification.outbox.cache_clear()
    agents = [each.agent for each in (detection, enrichment, refunds, ledger, notification)]
    async with World(templates=[load_template(TEMPLATES[0], MESSAGES)], agents=agents) as world:

        async def claim(units: int) -> FlowView:
            amount = Money(currency_code="EUR", units=units)
            event = ChargebackReceived(chargeback_id=f"cb-{units}", account_id="acct-0001", amount=amount)
            return await world.start("refund", event, key=f"cb-{units}", by="detection")

        flows = [await claim(units) for units in (20, 40, 60, 3000, 4000, 5000)]
        for flow in flows[3:5]:
            await world.approve(flow, voter="anna", roles=["finance"])
        await world.approve(flows[3], voter="ben", roles=["finance"])
        await world.reject(flows[4], voter="ben", roles=["finance"])
        await world.advance(HOURS)
    ledger.book.cache_clear()
    notification.outbox.cache_clear()
    return flows


async def test_the_payments_template_is_found_in_its_own_traffic(refund_traffic: list[FlowView]) -> None:
    shipped = load_template(TEMPLATES[0], MESSAGES)
    inferred = infer("refund", traffic_of(*refund_traffic), shipped.contracts)
    template = inferred.template
    assert structure(template) == structure(shipped.proto)
    assert (template.name, template.version) == ("refund", 2)
    assert not inferred.findings
    effects = {step.name: step.effect for step in template.steps}
    assert effects == {
        **dict.fromkeys(("enrich", "grant", "notify"), EFFECT_NONE),
        "pay": EFFECT_UNDOABLE,
    }, "an irreversible effect can't be told from none"
    pay, notify = step_of(template, "pay"), step_of(template, "notify")
    assert list(pay.undo.emits) == ["payments.v1.RefundReversed"]
    assert (notify.retry.max_attempts, notify.on_failure) == (3, FAILURE_ACTION_COMPENSATE)
    (gate,) = template.gates
    (meant,) = shipped.proto.gates
    assert (gate.name, gate.when, gate.approvers, gate.expires_after) == (
        *(meant.name, meant.when, meant.approvers, meant.expires_after),
    )
    assert (gate.on_expiry, gate.on_reject) == (EXPIRY_ACTION_REJECT, REJECT_ACTION_CONTINUE)


async def test_it_is_written_so_that_it_reads_back_with_its_evidence_beside_it(refund_traffic: list[FlowView]) -> None:
    contracts = load_template(TEMPLATES[0], MESSAGES).contracts
    inferred = infer("refund", traffic_of(*refund_traffic), contracts)
    text = to_text(inferred.template, inferred.notes)
    assert load_yaml(text) == inferred.template
    assert load_template(text, MESSAGES).name == "refund"
    assert "# Inferred from 6 flows" in text
    assert "emits: [payments.v1.CustomerNotified] # 5\n" in text
    assert "effect: UNDOABLE # undone: 1\n" in text
    assert "payments.v1.SmallRefundGranted 3, payments.v1.LargeRefundGranted 3" in text


async def test_what_never_happened_is_not_inferred_and_the_notes_say_so(refund_traffic: list[FlowView]) -> None:
    contracts = load_template(TEMPLATES[0], MESSAGES).contracts
    inferred = infer("refund", traffic_of(*refund_traffic[:2]), contracts)
    grant = step_of(inferred.template, "grant")
    assert list(grant.emits) == ["payments.v1.SmallRefundGranted"]
    assert not inferred.template.gates
    about_all = " ".join(inferred.notes[""])
    assert "never came: payments.v1.LargeRefundGranted, payments.v1.RefundReversed." in about_all


def offered(parts: int) -> Simulation:
    """An offer of this many parts, joined from their prices."""
    simulation = begun("offer", units=parts)
    listing = run_of(simulation, "list")
    simulation.say(simulation.outcome(listing, make("PartsListed", parts=parts), total=parts + 1))
    for index in range(parts):
        part = make("PartFound", name=f"part {index}")
        simulation.say(simulation.outcome(listing, part, index=index + 1, total=parts + 1))
    for run in [run for run in simulation.flow.runs.values() if run.step.name == "price"]:
        simulation.say(simulation.outcome(run, make("PartPriced", price=3)))
    emit(simulation, "offer", "OfferMade", total=9)
    return simulation


def test_a_join_that_counts_by_a_field_is_found_with_its_count() -> None:
    flows = [offered(parts) for parts in (1, 3, 2, 7)]
    inferred = infer("offer", traffic_of(*flows), contracts())
    assert structure(inferred.template) == structure(load("offer").proto) | {"started_by": set()}
    assert codes(inferred.findings) == codes(check(load("offer").proto, contracts()))
    join = step_of(inferred.template, "offer").after_all
    assert "latest['shop.v1.PartsListed'].parts" in [each.count for each in join]
    (note,) = (inferred.notes[f"steps[2].after_all[{n}]"] for n, each in enumerate(join) if each.count)
    assert note == ["1 to 7 in 4 joins, and this was the number each time; so did latest['shop.v1.OrderPlaced'].units"]


def test_a_join_whose_number_never_changes_counts_by_that_number_and_says_which_field_had_it() -> None:
    inferred = infer("offer", traffic_of(offered(3), offered(3)), contracts())
    index, join = next((n, each) for n, each in enumerate(step_of(inferred.template, "offer").after_all) if each.count)
    assert (join.type, join.count) == ("shop.v1.PartPriced", "3")
    assert (
        "latest['shop.v1.PartsListed'].parts was the same number" in inferred.notes[f"steps[2].after_all[{index}]"][0]
    )


def test_a_root_that_nothing_explains_is_told() -> None:
    (flow,) = traffic_of(offered(2))
    priced = [each for each in flow.recorded if each.type != "shop.v1.PartPriced"]
    inferred = infer("offer", [Traffic(priced, flow.status)], contracts())
    assert not step_of(inferred.template, "offer").after_all
    index = [step.name for step in inferred.template.steps].index("offer")
    assert "no recorded message explains the roots of 1 run" in inferred.notes[f"steps[{index}]"]


def refused() -> Simulation:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "lea", ["sales_lead"], approve=False))
    emit(simulation, "refuse", "OrderRefused")
    return simulation


def approved() -> Simulation:
    simulation = granted(30)
    for voter in ("lea", "lou"):
        simulation.say(simulation.vote(proposal_of(simulation), voter, ["sales_lead"]))
    emit(simulation, "pay", "PaymentTaken", amount=95)
    emit(simulation, "send", "ParcelSent")
    return simulation


def taken_back() -> Simulation:
    """An order whose parcel can't be sent: the payment is taken back, then the goods."""
    simulation = paid()
    simulation.say(simulation.failed(run_of(simulation, "send"), "no parcel", retryable=False))
    for name in ("PaymentReturned", "StockReleased"):
        (effect,) = (effect for effect in simulation.flow.effects.values() if effect.deadline is not None)
        simulation.say(simulation.undone(effect, make(name)))
    return simulation


def test_gates_effects_refusals_and_rules_are_found_as_the_decisions_have_them() -> None:
    failing = begun()
    failing.say(failing.failed(run_of(failing, "reserve"), "no stock", retryable=False))
    risky = begun(risk=9)
    flows = [sent(), refused(), approved(), taken_back(), failing, risky]
    inferred = infer("order", traffic_of(*flows), contracts())
    template, shipped = inferred.template, load("order").proto
    assert structure(template) == structure(shipped) | {"started_by": set()}
    assert not inferred.findings
    for name in ("reserve", "pay"):
        assert step_of(template, name).effect == EFFECT_UNDOABLE
        assert list(step_of(template, name).undo.emits) == list(step_of(shipped, name).undo.emits)
    assert step_of(template, "send").on_failure == FAILURE_ACTION_COMPENSATE
    assert step_of(template, "reserve").on_failure == FAILURE_ACTION_ESCALATE
    (gate,), (meant,) = template.gates, shipped.gates
    assert (gate.name, gate.when, gate.approvers) == (meant.name, meant.when, meant.approvers)
    assert (gate.expires_after, gate.on_reject) == (meant.expires_after, REJECT_ACTION_CONTINUE)
    (rule,), (tripping,) = template.rules, shipped.rules
    assert (rule.name, rule.when, rule.then) == (tripping.name, tripping.when, tripping.then)
    assert set(rule.on) <= set(tripping.on)


def test_a_gate_that_let_all_pass_is_found_without_whom_it_would_ask() -> None:
    inferred = infer("order", traffic_of(sent()), contracts())
    (gate,) = inferred.template.gates
    assert gate == Gate(
        name="discount_granted", on="shop.v1.DiscountGranted", approvers=gate.approvers,
        on_expiry=EXPIRY_ACTION_WAIT, on_reject=REJECT_ACTION_COMPENSATE,
    )  # fmt: skip
    assert inferred.notes["gates[0].approvers"] == ["nobody was ever asked: say who approves"]


def test_what_does_not_count_is_left_out_and_named() -> None:
    simulation = reserved()
    stray = simulation.outcome(run_of(simulation, "reserve"), make("ParcelSent"), agent="cashier", index=3)
    simulation.say(stray)
    inferred = infer("order", traffic_of(simulation, sent()), contracts())
    assert "shop.v1.ParcelSent" not in step_of(inferred.template, "reserve").emits
    assert "Left out, because they do not count: shop.v1.ParcelSent by cashier 1." in inferred.notes[""]


def test_the_proposed_version_is_behind_every_one_on_record() -> None:
    moved = infer("order", traffic_of(sent(), Simulation(load("order", flow__version="4"))), contracts())
    assert moved.template.version == 2, "a flow that has not begun tells nothing"
    simulation = Simulation(load("order", flow__version="4"))
    simulation.say(simulation.start(make("OrderPlaced", units=1), agent="storefront"))
    inferred = infer("order", traffic_of(sent(), simulation), contracts())
    assert inferred.template.version == 5
    assert "2 flows, 1 of version 1, 1 of version 4," in inferred.notes[""][0]


def test_messages_that_the_contracts_do_not_know_are_taken_as_they_are() -> None:
    flows = traffic_of(granted(30), begun(risk=9), *(offered(parts) for parts in (2, 3)))
    inferred = infer("order", flows, Contracts.from_descriptor_set(b""))
    assert {"reserve", "discount", "list", "price", "offer"} <= {step.name for step in inferred.template.steps}
    assert "HR002" in codes(inferred.findings)
    assert load_yaml(to_text(inferred.template, inferred.notes)) == inferred.template


def test_nothing_is_inferred_from_nothing() -> None:
    (flow,) = traffic_of(sent())
    without_beginning = Traffic([each for each in flow.recorded if each.kind is not Kind.EVENT], flow.status)
    for flows in ([], [without_beginning]):
        with pytest.raises(HandrailError) as caught:
            infer("order", flows, contracts())
        assert caught.value.reason_name == "FLOW_NOT_FOUND"
