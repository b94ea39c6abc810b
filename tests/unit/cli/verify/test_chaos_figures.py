"""The figures of `make chaos`: what the book shows, how flows may end, and how long a fault held them up."""

from __future__ import annotations

from datetime import UTC, datetime

from handrail.cli.verify.account import Account
from handrail.cli.verify.finding import Breach
from handrail.cli.verify.record import Message
from handrail.cli.verify.standing import OPEN, Standing
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.event_pb2 import Event
from tests.chaos.history.book import Move, discrepancies
from tests.chaos.history.faults import Fault
from tests.chaos.history.figures import recoveries, wrong_ends
from tests.chaos.history.story import Lot

COMPLETED = Standing(FlowStatus.FLOW_STATUS_COMPLETED, ())
COMPENSATED = Standing(FlowStatus.FLOW_STATUS_COMPENSATED, ())


def message(name: str, at: float, kind: str = "event") -> Message:
    return Message(
        1, datetime.fromtimestamp(at, UTC), "refund", "f", kind, "a", "0" * 32, f"payments.v1.{name}", Event()
    )


def flow(*messages: Message) -> Account:
    return Account("refund", "f", messages=list(messages))


PAID = flow(message("ChargebackReceived", 100), message("RefundPaid", 101), message("CustomerNotified", 105))
PAY, TELL = Move("1", "f", "pay", 5), Move("2", "f", "tell", 0)


def breaches(account: Account, standing: Standing, *moves: Move) -> list[Breach]:
    return [each.breach for each in discrepancies(moves, {"f": account}, {"f": standing})]


def test_a_book_that_agrees_with_the_stream_is_right() -> None:
    assert breaches(PAID, COMPLETED, PAY, TELL) == []


def test_money_that_moved_twice_is_doubled() -> None:
    assert Breach.DOUBLED in breaches(PAID, COMPLETED, PAY, Move("3", "f", "pay", 5), TELL)


def test_money_that_moved_in_silence_or_not_at_all_is_wrong() -> None:
    assert breaches(flow(message("ChargebackReceived", 100)), COMPLETED, PAY) == [Breach.WRONG]
    assert breaches(PAID, COMPLETED, TELL) == [Breach.WRONG]


def test_money_that_is_gone_though_the_flow_was_undone_is_wrong() -> None:
    assert breaches(flow(message("RefundPaid", 101)), COMPENSATED, PAY) == [Breach.WRONG]


def test_moves_of_no_flow_are_wrong() -> None:
    assert breaches(PAID, COMPLETED, PAY, TELL, Move("9", "other", "pay", 5)) == [Breach.WRONG]


def test_healthy_work_that_was_undone_is_wrong() -> None:
    def found(lot: Lot, standing: Standing) -> int:
        return len(list(wrong_ends({"f": lot}, {"f": PAID}, {"f": standing})))

    assert found(Lot.PLAIN, COMPENSATED) == 1
    assert found(Lot.HOPELESS, COMPENSATED) == 0
    assert found(Lot.PLAIN, Standing(OPEN, ())) == 0


def test_recovery_is_how_long_the_slowest_flow_was_held_up() -> None:
    faults = [Fault("kill", "it", 99, 102), Fault("kill", "it", 104, 104.5), Fault("stop", "it", 200, 201)]
    [kill, stop] = recoveries(faults, {"f": Lot.PLAIN}, {"f": PAID}, {"f": COMPLETED})
    assert (kill.number, kill.middle, kill.longest) == (2, 3.0, 5.0)
    assert (stop.number, stop.longest) == (1, 0.0)
