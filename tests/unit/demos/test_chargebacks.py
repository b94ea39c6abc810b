"""The file of chargebacks: what is well-formed is read, what is not is named with its line, not dropped silently."""

import json
from pathlib import Path
from random import Random

import pytest
from google.type.money_pb2 import Money

from demos.payments import generate
from demos.payments.chargebacks import Chargeback, Skipped, read_chargebacks
from demos.payments.customers import SHIPPED, Customer, Customers
from handrail.mesh.contracts import Contracts
from payments.v1.payments_pb2 import LargeRefundGranted, Risk, SmallRefundGranted

SHIPPED_CHARGEBACKS = SHIPPED.with_name("chargebacks.jsonl")
GOOD = {"chargeback_id": "cb-1", "account_id": "acct-1", "amount": {"currency_code": "EUR", "units": 5}}


def read(path: Path, *lines: object) -> list[Chargeback | Skipped]:
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=True).encode() for line in lines)
    )
    return list(read_chargebacks(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chargebacks.jsonl"


def test_the_shipped_files_are_what_the_script_writes(tmp_path: Path) -> None:
    random = Random(generate.SEED)
    customers = list(generate.customers(random))
    generate.write_lines(tmp_path / "chargebacks.jsonl", generate.chargebacks(random, generate.COUNT))
    assert (tmp_path / "chargebacks.jsonl").read_bytes() == SHIPPED_CHARGEBACKS.read_bytes()
    loaded = Customers.load(SHIPPED)
    assert [loaded.find(customer.account_id) for customer in customers] == customers


def test_the_shipped_chargebacks_are_sound_mostly_small_and_of_known_customers() -> None:
    chargebacks = [found for found in read_chargebacks(SHIPPED_CHARGEBACKS) if isinstance(found, Chargeback)]
    assert len(chargebacks) == len(SHIPPED_CHARGEBACKS.read_text("utf-8").splitlines()) >= 200
    assert 5 <= sum(chargeback.amount.is_large for chargeback in chargebacks) <= 20
    assert {chargeback.amount.currency for chargeback in chargebacks} == {"EUR", "USD", "GBP"}
    known = {json.loads(line)["account_id"] for line in SHIPPED.read_text("utf-8").splitlines()}
    assert {chargeback.message.account_id for chargeback in chargebacks} <= known


def test_both_spellings_of_a_field_are_read(path: Path) -> None:
    camel = {"chargebackId": "cb-2", "accountId": "a", "amount": {"currencyCode": "EUR", "units": "7", "nanos": 10}}
    one, other = read(path, GOOD, camel)
    assert isinstance(one, Chargeback)
    assert isinstance(other, Chargeback)
    assert str(other.amount) == "EUR 7.00000001"


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"nonsense", "not a JSON object"),
        (b"[1, 2]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"chargeback_id": "cb', "JSON"),
        (b'{"chargeback_id": "cb-1", "chargeback_id": "cb-2"}', "duplicate key"),
        (b'{"a": ' * 100_000, "recursion"),
        (b'{"account_id": "\xff"}', "utf-8"),
        ({**GOOD, "surprise": 1}, "surprise"),
        ({**GOOD, "chargeback_id": 3}, "chargeback_id"),
        ({**GOOD, "chargeback_id": ""}, "chargeback_id"),
        ({**GOOD, "chargeback_id": "x" * 65}, "chargeback_id"),
        ({**GOOD, "account_id": "\ud800"}, "account_id"),
        ({**GOOD, "amount": None}, "amount"),
        ({**GOOD, "amount": {"currency_code": "EUR", "units": 0}}, "amount"),
        ({**GOOD, "amount": {"currency_code": "EUR", "units": -5}}, "amount"),
        ({**GOOD, "amount": {"currency_code": "EURO", "units": 5}}, "amount"),
        ({**GOOD, "amount": {"currency_code": "EUR", "units": 1.5}}, "units"),
        ({**GOOD, "amount": {"currency_code": "EUR", "units": 2**63}}, "units"),
        ({**GOOD, "amount": {"currency_code": "EUR", "units": 999, "nanos": 1_000_000_000}}, "amount"),
        ({**GOOD, "received_time": "yesterday"}, "received_time"),
    ],
)
def test_p5_a_malformed_line_is_named_with_its_number_and_the_rest_is_read(
    path: Path, line: object, reason: str
) -> None:
    before, skipped, after = read(path, {**GOOD, "chargeback_id": "cb-0"}, line, GOOD)
    assert isinstance(before, Chargeback)
    assert isinstance(skipped, Skipped)
    assert skipped.line == 2
    assert reason in skipped.reason
    assert "\n" not in skipped.reason
    assert isinstance(after, Chargeback)
    assert after.line == 3


def test_a_chargeback_counts_once_the_first_line_that_holds_it(path: Path) -> None:
    dearer = {**GOOD, "amount": {"currency_code": "EUR", "units": 500}}
    first, repeated, changed = read(path, GOOD, GOOD, dearer)
    assert isinstance(first, Chargeback)
    assert repeated == Skipped(2, "the same chargeback cb-1 was on line 1: that one counts")
    assert changed == Skipped(3, "another chargeback cb-1 was on line 1: that one counts")


def test_blank_lines_are_passed_over_but_count(path: Path) -> None:
    path.write_bytes(b"\n  \r\n" + json.dumps(GOOD).encode())
    (only,) = read_chargebacks(path)
    assert only.line == 3


@pytest.mark.parametrize(
    "earlier, risk", [(0, Risk.RISK_LOW), (1, Risk.RISK_MEDIUM), (4, Risk.RISK_MEDIUM), (5, Risk.RISK_HIGH)]
)
def test_the_risk_of_a_customer_grows_with_the_chargebacks_before(earlier: int, risk: Risk.ValueType) -> None:
    assert Customer("acct-1", "ada@example.com", earlier).risk == risk


def test_an_unknown_account_is_a_new_customer_with_a_mailbox() -> None:
    one, other = (Customers({}).find(account) for account in ("a b/ü@x", "b"))
    assert one.risk == Risk.RISK_LOW
    assert one.email.startswith("account-")
    assert one.email != other.email


def test_a_line_that_is_no_customer_is_named(path: Path) -> None:
    path.write_text('{"account_id": "a", "email": "a@example.com", "earlier_chargebacks": 0}\n{"account_id": "b"}\n')
    with pytest.raises(ValueError, match=r"line 2: .*email"):
        Customers.load(path)


@pytest.mark.parametrize(
    "contract, units, nanos, kept",
    [
        (SmallRefundGranted, 999, 999_999_999, True),
        (SmallRefundGranted, 1_000, 0, False),
        (SmallRefundGranted, 999, 1_500_000_000, False),
        (LargeRefundGranted, 1_000, 0, True),
        (LargeRefundGranted, 999, 999_999_999, False),
        (LargeRefundGranted, 999, 1_500_000_000, False),
    ],
)
def test_p6_no_large_refund_can_be_dressed_as_a_small_one(
    contract: type[SmallRefundGranted | LargeRefundGranted], units: int, nanos: int, kept: bool
) -> None:
    amount = Money(currency_code="EUR", units=units, nanos=nanos)
    granted = contract(chargeback_id="cb-1", account_id="acct-1", amount=amount, email="ada@example.com")
    assert (not Contracts.from_messages([contract]).violations(granted)) == kept
