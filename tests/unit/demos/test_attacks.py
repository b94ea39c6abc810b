"""P6: no agent of the payments demo can dress a large refund as small ones, or pay what nobody claimed.

The agent `refunds`, or `ledger`, is hostile: what it says is put on the stream by hand, past its SDK. The others are
the demo's own.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from demos.payments import MESSAGES, TEMPLATES, detection, enrichment, ledger, notification, refunds, settings
from demos.payments.book import Book
from demos.payments.outbox import Outbox
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World, load_template
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    RefundPaid,
    SmallRefundGranted,
)
from tests.support.forged import large, outcome, paid, small

AGENTS = [each.agent for each in (detection, enrichment, refunds, ledger, notification)]
CLAIM = 5_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files of their own for the agents, which keep what they opened."""
    monkeypatch.setenv(settings.LEDGER, str(tmp_path / "ledger.sqlite"))
    monkeypatch.setenv(settings.OUTBOX, str(tmp_path / "outbox.jsonl"))
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


async def claim(world: World, units: int = CLAIM) -> FlowView:
    amount = Money(currency_code="EUR", units=units)
    event = ChargebackReceived(chargeback_id="cb-1", account_id="acct-0001", amount=amount)
    return await world.start("refund", event, key="cb-1", by="detection")


def root_of(flow: FlowView, contract: type[Message]) -> str:
    """The fact that triggers the step."""
    return next(each.event_id for each in flow.history if each.type == contract.DESCRIPTOR.full_name)


async def say(
    world: World, flow: FlowView, agent: str, step: str, message: Message, *, root: str, index: int = 0, total: int = 1
) -> None:
    """Publish an answer in the agent's name, as the broker would let it."""
    entry = outcome(flow.flow_id, agent, step, message, root=root, index=index, total=total)
    await world.publish(entry.address.subject, entry.body)


def stopped(world: World, flow: FlowView, folder: Path) -> bool:
    """Whether nothing was paid, nobody was told, and it was refused, or a person is asked."""
    assert not Book(folder / "ledger.sqlite").transfers()
    assert not Outbox(folder / "outbox.jsonl").letters()
    return flow.status == "ESCALATED" or bool(world.quarantined)


async def test_p6_six_small_refunds_of_one_run_are_none(world: World, folder: Path) -> None:
    world.stop_agent("refunds")
    flow = await claim(world)
    root = root_of(flow, ChargebackEnriched)
    for index in range(6):
        await say(world, flow, "refunds", "grant", small(), root=root, index=index, total=6)
    assert stopped(world, flow, folder)
    assert not flow.facts(SmallRefundGranted)


async def test_p6_nor_are_six_of_runs_that_nothing_triggered(world: World, folder: Path) -> None:
    world.stop_agent("refunds")
    flow = await claim(world)
    for number in range(6):
        await say(world, flow, "refunds", "grant", small(), root=f"{number:032x}")
    assert not flow.facts(SmallRefundGranted)
    assert not Book(folder / "ledger.sqlite").transfers()


@pytest.mark.parametrize(
    "claimed, granted",
    [
        (CLAIM, small(-999)),
        (CLAIM, small(0)),
        (CLAIM, small(5, nanos=-1)),
        (CLAIM, small(currency="")),
        (CLAIM, small(currency="EURO")),
        (CLAIM, small(currency="USD")),
        (CLAIM, small(account="acct-0002")),
        (CLAIM, small(chargeback="cb-2")),
        (5, small(999)),
        (5, small(5, nanos=1)),
    ],
    ids=[
        *("negative", "nothing", "both signs", "no currency", "long currency", "other currency", "other account"),
        *("other chargeback", "more than claimed", "a billionth more"),
    ],
)
async def test_p6_a_small_refund_that_was_not_claimed_is_not_paid(
    world: World, folder: Path, claimed: int, granted: SmallRefundGranted
) -> None:
    world.stop_agent("refunds")
    flow = await claim(world, claimed)
    await say(world, flow, "refunds", "grant", granted, root=root_of(flow, ChargebackEnriched))
    assert stopped(world, flow, folder)


async def test_p6_a_large_one_is_held_too_whatever_people_said_to_it(world: World, folder: Path) -> None:
    world.stop_agent("refunds")
    flow = await claim(world, 1_000)
    root = root_of(flow, ChargebackEnriched)
    entry = outcome(flow.flow_id, "refunds", "grant", large(9_000), root=root, kind=Kind.PROPOSAL)
    await world.publish(entry.address.subject, entry.body)
    for voter in ("anna", "ben"):
        await world.approve(flow, voter=voter, roles=["finance"])
    assert flow.status == "ESCALATED"
    assert stopped(world, flow, folder)


@pytest.mark.parametrize(
    "answers",
    [[paid()] * 6, [paid(4_001)], [paid(currency="USD")], [paid(account="acct-0002")], [paid(-1)]],
    ids=["six times", "more", "another currency", "another account", "negative"],
)
async def test_p6_a_ledger_that_reports_what_was_not_claimed_is_stopped(
    world: World, folder: Path, answers: list[RefundPaid]
) -> None:
    world.stop_agent("ledger")
    flow = await claim(world, 900)
    root = root_of(flow, SmallRefundGranted)
    for index, answer in enumerate(answers):
        await say(world, flow, "ledger", "pay", answer, root=root, index=index, total=len(answers))
    assert stopped(world, flow, folder)


async def test_what_was_claimed_is_paid_to_the_billionth(world: World, folder: Path) -> None:
    amount = Money(currency_code="EUR", units=999, nanos=999_999_999)
    event = ChargebackReceived(chargeback_id="cb-1", account_id="acct-0001", amount=amount)
    flow = await world.start("refund", event, key="cb-1", by="detection")
    assert flow.status == "COMPLETED"
    assert [str(each.amount) for each in Book(folder / "ledger.sqlite").transfers()] == ["EUR 999.999999999"]
