"""The agents of the payments demo under the real decisions, in memory: what becomes of the money and the customer."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.type.money_pb2 import Money

from demos.payments import MESSAGES, TEMPLATES, detection, enrichment, ledger, notification, refunds, settings
from demos.payments.book import Book
from demos.payments.outbox import Outbox
from handrail.testing import FlowView, World, load_template
from handrail.v1.failure_pb2 import StepFailed
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    Outcome,
    RefundReversed,
    Risk,
    SmallRefundGranted,
)

AGENTS = [each.agent for each in (detection, enrichment, refunds, ledger, notification)]
FINANCE = ["finance"]

# Longer than any retry of the template takes.
A_WHILE = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files of their own for the agents, which keep what they opened."""
    monkeypatch.setenv(settings.LEDGER, str(tmp_path / "ledger.sqlite"))
    monkeypatch.setenv(settings.OUTBOX, str(tmp_path / "outbox.jsonl"))
    monkeypatch.setenv(settings.PER_SECOND, "1e9")
    opened = (ledger.book, notification.outbox)
    for each in opened:
        each.cache_clear()
    yield tmp_path
    for each in opened:
        each.cache_clear()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(templates=[load_template(TEMPLATES[0], MESSAGES)], agents=AGENTS) as world:
        yield world


def moved(folder: Path) -> list[str]:
    """What went to customers and back, in order."""
    return [str(transfer.amount) for transfer in Book(folder / "ledger.sqlite").transfers()]


def told(folder: Path) -> list[tuple[str, str]]:
    """Who was told, and what."""
    return [(letter.to, letter.outcome) for letter in Outbox(folder / "outbox.jsonl").letters()]


async def claim(world: World, units: int, *, chargeback_id: str = "cb-1", account_id: str = "acct-0001") -> FlowView:
    amount = Money(currency_code="EUR", units=units, nanos=500_000_000)
    event = ChargebackReceived(chargeback_id=chargeback_id, account_id=account_id, amount=amount)
    return await world.start("refund", event, key=chargeback_id, by="detection")


async def test_a_small_refund_is_paid_once_and_told(world: World, folder: Path) -> None:
    flow = await claim(world, 999)
    assert flow.status == "COMPLETED"
    assert [enriched.risk for enriched in flow.facts(ChargebackEnriched)] == [Risk.RISK_MEDIUM]
    assert len(flow.facts(SmallRefundGranted)) == 1
    assert moved(folder) == ["EUR 999.50"]
    assert told(folder) == [("ada.abel@example.com", "OUTCOME_REFUNDED")]
    assert len(flow.history) == 5


async def test_p6_a_large_refund_is_paid_only_when_two_people_said_yes(world: World, folder: Path) -> None:
    flow = await claim(world, 1_000)
    assert flow.status == "WAITING_APPROVAL"
    await world.approve(flow, voter="anna", roles=FINANCE)
    assert flow.facts(LargeRefundGranted) == []
    assert moved(folder) == []
    await world.approve(flow, voter="ben", roles=FINANCE)
    assert flow.status == "COMPLETED"
    assert moved(folder) == ["EUR 1,000.50"]


async def test_a_refused_refund_moves_nothing_and_its_customer_is_told(world: World, folder: Path) -> None:
    flow = await claim(world, 1_000, account_id="nobody knows")
    await world.approve(flow, voter="anna", roles=FINANCE)
    await world.reject(flow, voter="ben", roles=FINANCE)
    assert flow.status == "COMPLETED"
    assert moved(folder) == []
    assert [outcome for _, outcome in told(folder)] == ["OUTCOME_REFUSED"]
    assert [each.outcome for each in flow.facts(CustomerNotified)] == [Outcome.OUTCOME_REFUSED]


async def test_a_refund_that_nobody_can_be_told_of_is_taken_back(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.UNDELIVERABLE, json.dumps(["cb-2"]))
    await claim(world, 10)
    flow = await claim(world, 20, chargeback_id="cb-2")
    await world.advance(A_WHILE)
    assert flow.status == "COMPENSATED"
    assert [failed.error_class for failed in flow.recorded(StepFailed)] == ["MailboxUnavailable"] * 3
    assert len(flow.recorded(RefundReversed)) == 1
    assert moved(folder) == ["EUR 10.50", "EUR 20.50", "EUR -20.50"]
    assert len(told(folder)) == 1


async def test_p8_a_crash_between_the_books_commit_and_the_publish_moves_money_once(world: World, folder: Path) -> None:
    world.crash_agent("ledger", "publish")
    flow = await claim(world, 10)
    assert moved(folder) == ["EUR 10.50"]
    assert flow.status == "RUNNING"
    await world.advance(A_WHILE)
    assert flow.status == "COMPLETED"
    assert moved(folder) == ["EUR 10.50"]
    assert len(told(folder)) == 1


async def test_p8_a_crash_after_the_books_commit_and_then_a_halt_moves_no_money_in_the_end(
    world: World, folder: Path
) -> None:
    world.crash_agent("ledger", "publish")
    flow = await claim(world, 10)
    await world.compensate(flow, reason="claimed by mistake")
    await world.advance(A_WHILE)
    assert flow.status == "COMPENSATED"
    assert moved(folder) == ["EUR 10.50", "EUR -10.50"]
    assert told(folder) == []


async def test_p8_a_crash_after_the_message_is_written_writes_it_once(world: World, folder: Path) -> None:
    world.crash_agent("notification", "publish")
    flow = await claim(world, 10)
    await world.advance(A_WHILE)
    assert flow.status == "COMPLETED"
    assert len(told(folder)) == 1


async def test_a_transfer_that_the_book_does_not_hold_is_a_matter_for_a_person(world: World, folder: Path) -> None:
    flow = await claim(world, 10)
    (folder / "ledger.sqlite").unlink()
    ledger.book.cache_clear()
    await world.compensate(flow, reason="claimed by mistake")
    await world.advance(A_WHILE)
    assert flow.status == "ESCALATED"
    assert ["is not in the book" in failed.text for failed in flow.recorded(StepFailed)] == [True]


async def test_detection_begins_a_flow_for_each_chargeback_and_none_again_after_a_restart(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = {"chargeback_id": "cb-1", "account_id": "a", "amount": {"currency_code": "EUR", "units": 5}}
    lines = [json.dumps(line), "nonsense", json.dumps({**line, "chargeback_id": "cb-2"})]
    path = folder / "chargebacks.jsonl"
    path.write_text("\n".join(lines))
    monkeypatch.setenv(settings.CHARGEBACKS, str(path))
    caplog.set_level("INFO")
    await world.run_sources("detection")
    assert "line 2 is skipped: it is not a JSON object" in caplog.text
    assert "2 flows begun, 0 known before, 1 lines skipped" in caplog.text
    await world.run_sources("detection")
    assert "0 flows begun, 2 known before, 1 lines skipped" in caplog.text
    assert moved(folder) == ["EUR 5.00", "EUR 5.00"]


async def test_detection_without_a_file_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(settings.CHARGEBACKS, raising=False)
    caplog.set_level("INFO")
    await world.run_sources("detection")
    assert f"{settings.CHARGEBACKS} is not set" in caplog.text
