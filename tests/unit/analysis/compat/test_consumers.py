"""The file of consumers: what it may say, and whom a change hits."""

from __future__ import annotations

import pytest

from handrail.analysis.compat.consumers import Consumer, parse, unknown, uses
from handrail.analysis.compat.contract_set import ContractSet
from handrail.mesh.errors import HandrailError
from tests.contract.source import ROOT

RELEASED = ContractSet.parse((ROOT / "gen/released.binpb").read_bytes())


def named(**lists: tuple[str, ...]) -> Consumer:
    return Consumer("etl", "data@example.com", **lists)


def test_a_file_names_consumers_with_what_they_read_send_and_call() -> None:
    (found,) = parse("consumers: [{name: etl, contact: data@example.com, reads: [a.B, c.*], calls: d.E}]")
    assert found == named(reads=("a.B", "c.*"), calls=("d.E",))
    assert parse("consumers: []") == ()


@pytest.mark.parametrize(
    "text,why",
    [
        ("consumers: [", "not YAML"),
        ("", "single list"),
        ("consumers: {}", "single list"),
        ("consumers: [x]", "consumer 1 is not a mapping"),
        ("consumers: [{name: etl}]", "a name and a contact"),
        ("consumers: [{name: etl, contact: c, reads: [1]}]", '"1" in reads is not a full name'),
        ("consumers: [{name: etl, contact: c, reads: [a.*.b]}]", "not a full name"),
        ("consumers: [{name: etl, contact: c, writes: [a.B]}]", "consumer etl has an unknown key writes"),
        ("consumers: [{name: etl, contact: c}]", "nothing"),
        ("consumers: [{name: e, contact: c, reads: [a]}, {name: e, contact: c, reads: [a]}]", "two consumers"),
    ],
)
def test_an_invalid_file_is_refused_and_the_entry_named(text: str, why: str) -> None:
    with pytest.raises(HandrailError, match=why.replace("[", r"\[")):
        parse(text)


def test_a_name_stands_for_itself_and_what_is_below() -> None:
    consumers = [named(reads=("payments.v1.*",), calls=("handrail.v1.FlowService",))]
    (use,) = uses(consumers, {"payments.v1.RefundPaid", "payments.v10.Other"}, {"handrail.v1.FlowService.GetFlow"})
    assert (use.reads, use.calls) == (("payments.v1.RefundPaid",), ("handrail.v1.FlowService.GetFlow",))
    assert str(use) == ("reads payments.v1.RefundPaid, calls handrail.v1.FlowService.GetFlow; tell data@example.com")
    assert list(uses(consumers, {"shop.v1.Order"}, {"handrail.v1.FlowServiceTwo.Get"})) == []


def test_names_that_no_contract_has_are_found() -> None:
    known = ("payments.v1.RefundPaid", "payments.v1.Risk", "handrail.v1.FlowService.StartFlow", "handrail.v1.*")
    consumer = named(reads=(*known, "payments.v2.*", "payments.v1.Refund"))
    assert [name for _, name in unknown([consumer], RELEASED)] == ["payments.v2.*", "payments.v1.Refund"]
