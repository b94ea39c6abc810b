"""The sentence of a flow: why it is where it is, what is expected from whom by when, and what happens else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.json_format import ParseDict

from handrail.console.flow.sentence import counted, enumerated, sentences, spoken, untold
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.act_pb2 import ActStatus
from handrail.v1.decision_pb2 import Choice, FlowStatus

START = datetime(2026, 11, 28, 10, 2, tzinfo=UTC)
NOW = START + timedelta(minutes=52)
DUE = NOW + timedelta(hours=3, minutes=9)


def flow(status: str, **fields: object) -> pb.Flow:
    found = pb.Flow(flow_type="refund", status=FlowStatus.Value(f"FLOW_STATUS_{status}"))
    found.start_time.FromDatetime(START)
    found.update_time.FromDatetime(NOW)
    ParseDict(fields, found)
    return found


def said(found: pb.Flow, now: datetime = NOW) -> str:
    return spoken(sentences(found, now))


def waiting(*voters: str, **fields: object) -> pb.Flow:
    found = flow("WAITING_APPROVAL")
    approval = found.approvals.add(
        approval_id="refund.f.e", step="grant", type="payments.v1.LargeRefundGranted", status=pb.APPROVAL_STATUS_PENDING
    )
    ParseDict({"amount": {"currencyCode": "EUR", "units": "1240"}, "accountId": "ACC-7781"}, approval.data_json)
    approval.gates.add(gate="large_refund", roles=["finance"], quorum=2)
    approval.expire_time.FromDatetime(DUE)
    for voter in voters:
        vote = approval.votes.add(voter=voter, approve=True)
        vote.time.FromDatetime(START + timedelta(minutes=7))
    owed = found.expectations.add(
        what="approval", by_roles=["finance"], subject_id="refund.f.e", otherwise="it counts as refused"
    )
    owed.due_time.FromDatetime(DUE)
    ParseDict(fields, found)
    return found


def test_an_approval_names_people_amount_deadline_and_what_happens_else() -> None:
    assert said(waiting()) == (
        "Two people of finance must approve 1,240.00 EUR by 14:03, in 3 h 9 min. "
        "If nobody answers, it counts as refused."
    )


def test_an_approval_with_a_vote_says_who_is_missing() -> None:
    assert said(waiting("Bob")) == (
        "Two people of finance must approve 1,240.00 EUR. Bob approved at 10:09. One more is needed by 14:03, "
        "in 3 h 9 min. If nobody answers, it counts as refused."
    )


def test_an_approval_of_anything_but_an_amount_names_type_and_step() -> None:
    found = waiting()
    found.approvals[0].data_json.Clear()
    assert said(found).startswith("Two people of finance must approve LargeRefundGranted of step grant by")


def test_an_approval_without_a_deadline_says_none() -> None:
    found = waiting("Bob")
    found.approvals[0].ClearField("expire_time")
    assert said(found).endswith("Bob approved at 10:09. One more is needed.")


def test_who_may_not_vote_is_named() -> None:
    found = waiting()
    found.approvals[0].gates[0].requester = "detection"
    assert "detection asked for it and may not vote." in said(found)


def test_a_vote_for_another_names_both() -> None:
    found = waiting("Bob")
    found.approvals[0].votes[0].on_behalf_of = "Cleo"
    assert "Bob for Cleo approved at 10:09." in said(found)


def test_only_approvals_that_wait_are_told() -> None:
    found = waiting()
    found.approvals.add(step="old", type="a.Old", status=pb.APPROVAL_STATUS_APPROVED)
    assert "Old" not in said(found)


def test_matters_are_told_once() -> None:
    found = flow("ESCALATED")
    for number in range(4):
        found.escalations.add(reason=f"reason {number}")
    assert [each.reason for each in untold(found)] == ["reason 3"]


def owed(found: pb.Flow, agent: str, *, due: datetime | None = DUE, what: str = "the outcome of step pay") -> pb.Flow:
    expectation = found.expectations.add(what=what, by_agent=agent, otherwise="a person is asked")
    if due is not None:
        expectation.due_time.FromDatetime(due)
    return found


def test_a_running_flow_says_who_owes_what_by_when_and_else() -> None:
    assert said(owed(flow("RUNNING"), "ledger")) == (
        "ledger owes the outcome of step pay. It is due by 14:03, in 3 h 9 min. Otherwise a person is asked."
    )


def test_a_deadline_that_has_passed_is_said_to_have() -> None:
    late = owed(flow("RUNNING"), "ledger", due=NOW - timedelta(minutes=1))
    assert "It is due by 10:53. That time has passed." in said(late)


def test_the_most_urgent_comes_first_and_the_rest_is_counted() -> None:
    found = flow("RUNNING")
    for minutes in (50, 40, 30, 20, 10):
        owed(found, f"agent{minutes}", due=NOW + timedelta(minutes=minutes))
    owed(found, "never", due=None)
    text = said(found)
    assert text.index("agent10") < text.index("agent20") < text.index("agent30")
    assert "agent40" not in text
    assert text.endswith("And three more steps.")


def test_a_running_flow_that_expects_nothing_says_so() -> None:
    assert said(flow("RUNNING")) == "Nothing is expected."


def test_an_escalation_says_why_since_when_and_what_can_be_chosen() -> None:
    found = flow("ESCALATED")
    matter = found.escalations.add(
        reason="step pay failed: account closed", step="pay", choices=[Choice.CHOICE_RETRY, Choice.CHOICE_MARK_UNDONE]
    )
    matter.open_time.FromDatetime(START + timedelta(minutes=22))
    assert said(found) == (
        "A person must decide about step pay. Step pay failed: account closed. "
        "An operator can choose: retry or mark undone. It has waited since 10:24, for 30 min."
    )


def test_an_escalation_with_a_choice_of_a_newer_coordinator_is_told() -> None:
    found = flow("ESCALATED")
    found.escalations.add(reason="why", choices=[Choice.CHOICE_RETRY, 99])
    assert "An operator can choose: retry." in said(found)


def test_a_completed_flow_says_when_and_how_long_it_took() -> None:
    assert said(flow("COMPLETED")) == "It reached its goal at 10:54, after 52 min."


@pytest.mark.parametrize(
    "status, begins",
    [("COMPENSATED", "Its effects were undone."), ("CANCELLED", "It was cancelled."), ("FAILED", "It failed.")],
)
def test_another_end_says_why_and_what_stands(status: str, begins: str) -> None:
    found = flow(status, statusReason="the customer withdrew")
    found.effects.add(type="payments.v1.RefundPaid", status=pb.EFFECT_STATUS_DONE)
    found.effects.add(type="payments.v1.CustomerNotified", status=pb.EFFECT_STATUS_IRREVERSIBLE)
    found.effects.add(type="payments.v1.Booked", status=pb.EFFECT_STATUS_UNDONE)
    assert said(found) == (f"{begins} The customer withdrew. Two effects stand: RefundPaid and CustomerNotified.")


def test_a_compensation_says_how_far_it_is_and_who_is_next() -> None:
    found = owed(flow("COMPENSATING", statusReason="asked by olga"), "ledger", what="the undo of a.Paid")
    found.effects.add(status=pb.EFFECT_STATUS_UNDONE)
    found.effects.add(status=pb.EFFECT_STATUS_UNDOING)
    found.effects.add(status=pb.EFFECT_STATUS_IRREVERSIBLE)
    text = said(found)
    assert text.startswith(
        "Its effects are being undone: 1 of 2 so far. Asked by olga. ledger owes the undo of a.Paid."
    )


def test_an_act_that_waits_for_another_person_is_told_in_any_state() -> None:
    found = owed(flow("RUNNING"), "ledger")
    act = found.acts.add(by="olga", summary="cancel the flow", status=ActStatus.ACT_STATUS_PENDING)
    act.expire_time.FromDatetime(DUE)
    found.acts.add(by="otto", summary="old", status=ActStatus.ACT_STATUS_EXPIRED)
    text = said(found)
    assert text.endswith(
        "olga asked to do this: cancel the flow. Another person must confirm it by 14:03, in 3 h 9 min; "
        "otherwise nothing is done."
    )
    assert "otto" not in text


def test_a_status_of_a_newer_coordinator_is_no_error() -> None:
    assert said(pb.Flow(status=99)) == "Nothing is expected."  # type: ignore[arg-type]


@pytest.mark.parametrize("status", FlowStatus.values())
def test_every_status_has_a_sentence(status: FlowStatus.ValueType) -> None:
    assert said(pb.Flow(status=status))


def test_numbers_and_lists_are_in_words() -> None:
    assert counted(1, "person", "people") == "one person"
    assert counted(2, "person", "people") == "two people"
    assert counted(1_200, "effect") == "1,200 effects"
    assert enumerated(["a"], "or") == "a"
    assert enumerated(["a", "b", "c"], "or") == "a, b or c"
    assert enumerated([], "or") == ""
