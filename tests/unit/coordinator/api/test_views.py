"""What the API shows of a flow: pure functions of the fold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.api.views import (
    approval_view,
    approvals,
    compensation_plan,
    event_view,
    expectations,
    flow_summary,
    flow_view,
)
from handrail.coordinator.decide import decide, messages
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import EffectState, ProposalState, RunState
from handrail.mesh.fold import begin, evolve
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded, from_timestamp, pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.decision_pb2 import ApprovalGiven, Choice, FlowStatus, HaltMode
from handrail.v1.event_pb2 import Event
from handrail.v1.event_pb2 import Kind as KindView
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import ApprovalStatus, EffectStatus, StepRunStatus
from handrail.v1.template_pb2 import EFFECT_NONE, EFFECT_UNDOABLE, Retry, Undo
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified, Risk
from tests.support import flows, orders

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RECEIVED = ChargebackReceived(chargeback_id="c1", account_id="a1")
RECEIVED.amount.units, RECEIVED.amount.currency_code = 5, "EUR"
ENRICHED = ChargebackEnriched(chargeback_id="c1", account_id="a1", risk=Risk.RISK_LOW, email="a@example.org")
ENRICHED.amount.CopyFrom(RECEIVED.amount)
ENRICH_ROOT = ids.start_id(flows.FLOW_ID)


class Story:
    """A flow told message by message; time stands still unless it is told to pass."""

    def __init__(self, *, gated: bool = False, undoable: bool = False, attempts: int = 1) -> None:
        proto = flows.template(gated=gated).proto
        enrich = proto.steps[0]
        enrich.retry.CopyFrom(Retry(max_attempts=attempts, initial_backoff=Duration(seconds=2)))
        if undoable:
            proto.steps[1].effect = EFFECT_NONE
            enrich.effect = EFFECT_UNDOABLE
            enrich.undo.CopyFrom(Undo(timeout=Duration(seconds=60)))
        contracts = Contracts.from_messages([ChargebackReceived, ChargebackEnriched, CustomerNotified])
        self.flow = begin(Template.compile(proto, contracts))
        self.now = BEGAN
        self.add(flows.start(message=RECEIVED))

    def add(self, entry: Entry) -> Recorded:
        """Record a message."""
        recorded = Recorded(entry.address, entry.event, self.flow.last_sequence + 1, self.now)
        self.flow = evolve(self.flow, recorded)
        return recorded

    def enriched(self, kind: Kind = Kind.EVENT) -> Recorded:
        """The first step answers."""
        return self.add(flows.enriched(kind=kind, message=ENRICHED))

    def failed(self, text: str) -> None:
        """The first step fails."""
        attempt = self.flow.runs["enrich", ENRICH_ROOT].attempt
        event_id = ids.attempt_id("failure", flows.FLOW_ID, "enrich", ENRICH_ROOT, 0, attempt)
        message = StepFailed(error_class="Lost", text=text, retryable=True)
        address = Address("refund", flows.FLOW_ID, Kind.FAILURE, "enrichment", event_id, message.DESCRIPTOR.full_name)
        event = Event(
            event_id=event_id, source="enrichment", flow_type="refund", flow_id=flows.FLOW_ID, template_version=1,
            step="enrich", root=ENRICH_ROOT, attempt=attempt, data=pack(message),
        )  # fmt: skip
        self.add(Entry(address, event))

    def decided(self, passed: timedelta = timedelta()) -> Story:
        """After so much time the coordinator decides until nothing is left."""
        self.now += passed
        while (entry := decide(self.flow, self.now)) is not None:
            self.add(entry)
        return self

    def halted(self, **options: Any) -> None:
        """A person has the flow compensated."""
        mode = HaltMode.HALT_MODE_COMPENSATE
        self.add(messages.halted(self.flow, mode, "a mistake", self.now, by="olga", **options))


def test_an_agent_owes_an_outcome_by_a_time_or_a_person_is_asked() -> None:
    (owed,) = expectations(Story().flow)
    assert (owed.by_agent, owed.step, owed.subject_id) == ("enrichment", "enrich", ENRICH_ROOT)
    assert flows.ENRICHED in owed.what
    assert from_timestamp(owed.due_time) == BEGAN + timedelta(seconds=30)
    assert owed.otherwise == "a person is asked"


def test_while_attempts_are_left_the_step_is_tried_again() -> None:
    story = Story(attempts=3)
    assert expectations(story.flow)[0].otherwise == "it is retried, up to 3 attempts; then a person is asked"
    story.failed("no connection")
    (owed,) = expectations(story.flow)
    assert owed.by_agent == "coordinator"
    assert "attempt 2 of 3 of step enrich, after: Lost: no connection" in owed.what
    assert from_timestamp(owed.due_time) == BEGAN + timedelta(seconds=2)
    assert flow_view(story.flow).status_reason == "step enrich failed and is retried: Lost: no connection"
    assert flow_view(story.flow).step_runs[0].status == StepRunStatus.STEP_RUN_STATUS_BACKOFF
    story.decided(timedelta(seconds=2))
    (owed,) = expectations(story.flow)
    assert (owed.by_agent, "attempt 2 of 3" in owed.what) == ("enrichment", True)


def test_a_run_names_the_messages_that_triggered_it_and_whether_its_outcome_is_known() -> None:
    story = Story(attempts=2)
    (run,) = flow_view(story.flow).step_runs
    assert (list(run.input_sequences), run.outcome_unknown) == ([1], False)
    story.decided(timedelta(seconds=31))
    (run,) = flow_view(story.flow).step_runs
    assert run.outcome_unknown


def test_an_escalation_waits_for_an_operator_with_its_choices() -> None:
    story = Story()
    story.failed("gone")
    view = flow_view(story.decided().flow)
    assert view.status == FlowStatus.FLOW_STATUS_ESCALATED
    assert "gone" in view.status_reason
    (owed,) = view.expectations
    assert (list(owed.by_roles), owed.subject_id) == (["operator"], view.escalations[0].escalation_id)
    assert "RETRY" in owed.otherwise
    assert Choice.CHOICE_RETRY in view.escalations[0].choices


def test_people_owe_their_votes_until_the_gate_expires() -> None:
    story = Story(gated=True)
    story.enriched(Kind.PROPOSAL)
    assert expectations(story.flow)[0].by_agent == "coordinator"
    flow = story.decided().flow
    (owed,) = expectations(flow)
    assert (list(owed.by_roles), owed.by_agent, owed.otherwise) == (["finance"], "", "it counts as refused")
    assert from_timestamp(owed.due_time) == BEGAN + timedelta(seconds=600)
    assert flow_summary(flow).status_reason == f"{flows.ENRICHED} needs approval"


def test_an_approval_shows_what_is_proposed_and_who_voted() -> None:
    story = Story(gated=True)
    proposal_id = story.enriched(Kind.PROPOSAL).event_id
    flow = story.decided().flow
    digest = flow.proposals[proposal_id].digest
    view = approval_view(flow, flow.proposals[proposal_id])
    assert (view.approval_id, view.digest, view.agent) == (qualified(flow, proposal_id), digest, "enrichment")
    assert view.status == ApprovalStatus.APPROVAL_STATUS_PENDING
    shown = MessageToDict(view.data_json)
    assert (shown["chargebackId"], shown["amount"]["units"]) == ("c1", "5")
    assert from_timestamp(view.gates[0].expire_time) == from_timestamp(view.expire_time)

    vote = ApprovalGiven(proposal_id=proposal_id, digest=digest, voter="fred", roles=["finance"], comment="ok")
    story.add(flows.decision(vote, about="fred", based_on=flow.last_sequence))
    flow = story.decided().flow
    view = approval_view(flow, flow.proposals[proposal_id])
    assert view.status == ApprovalStatus.APPROVAL_STATUS_APPROVED
    assert [(each.voter, each.approve, each.comment) for each in view.votes] == [("fred", True, "ok")]
    assert len(flow_view(flow).approvals) == 1


def test_a_flow_that_is_over_owes_nothing() -> None:
    story = Story()
    story.enriched()
    story.add(flows.notified())
    view = flow_view(story.decided().flow)
    assert view.status == FlowStatus.FLOW_STATUS_COMPLETED
    assert (list(view.expectations), view.status_reason) == ([], "")
    assert from_timestamp(view.start_time) == BEGAN


def test_a_flow_in_which_nobody_owes_anything_is_the_coordinators() -> None:
    # A completed step that nothing waits for: stranded, until the coordinator says so.
    story = Story()
    proto = story.flow.template.proto
    del proto.steps[1]
    contracts = story.flow.template.contracts
    story.flow = begin(Template.compile(proto, contracts))
    story.add(flows.start(message=RECEIVED))
    story.enriched()
    (owed,) = expectations(story.flow)
    assert (owed.by_agent, owed.otherwise) == ("coordinator", "a person is asked")


def test_a_halted_flow_awaits_only_what_may_have_changed_something() -> None:
    without_effect, with_effect = Story(), Story(undoable=True)
    for story in (without_effect, with_effect):
        story.halted()
    assert [owed.step for owed in expectations(with_effect.flow)] == ["enrich"]
    assert expectations(without_effect.flow)[0].by_agent == "coordinator"
    assert flow_view(with_effect.flow).halt_mode == HaltMode.HALT_MODE_COMPENSATE
    assert flow_view(with_effect.flow).status_reason == "a mistake"


def test_an_undo_is_owed_by_its_agent() -> None:
    story = Story(undoable=True)
    effect_id = story.enriched().event_id
    story.halted()
    flow = story.decided().flow
    (owed,) = expectations(flow)
    assert (owed.by_agent, owed.step, owed.subject_id) == ("enrichment", "enrich", effect_id)
    assert from_timestamp(owed.due_time) == BEGAN + timedelta(seconds=60)
    assert flow_view(flow).effects[0].status == EffectStatus.EFFECT_STATUS_UNDOING


def test_a_plan_is_what_a_compensation_then_does() -> None:
    story = Story(undoable=True)
    story.enriched()
    plan = compensation_plan(story.flow, "")
    assert (plan.etag, len(plan.undos)) == (story.flow.etag, 1)
    story.halted()
    assert [each.event_id for each in plan.undos] == [each.recorded.event_id for each in story.flow.undo_targets()]


def test_a_plan_names_the_runs_whose_outcome_is_awaited_first() -> None:
    story = Story()
    story.enriched()
    plan = compensation_plan(story.flow, "")
    assert [run.step for run in plan.unknown] == ["notify"]


def test_a_plan_back_to_a_step_keeps_that_step() -> None:
    story = Story(undoable=True)
    story.enriched()
    assert not compensation_plan(story.flow, "enrich").undos
    with pytest.raises(HandrailError) as caught:
        compensation_plan(story.flow, "notify")
    assert caught.value.reason_name == "STEP_NOT_FOUND"


def test_an_event_that_does_not_count_says_why() -> None:
    story = Story()
    late = story.add(flows.notified())
    view = event_view(late, story.flow.void.get(late.sequence))
    assert view.kind == KindView.KIND_EVENT
    assert "nothing triggered step notify" in view.void_reason
    assert flow_view(story.flow).divergences[0].sequence == late.sequence


def test_every_state_has_its_name_in_the_api() -> None:
    for run_state in RunState:
        StepRunStatus.Value(f"STEP_RUN_STATUS_{run_state.name}")
    for effect_state in EffectState:
        EffectStatus.Value(f"EFFECT_STATUS_{effect_state.name}")
    for kind in Kind:
        KindView.Value(f"KIND_{kind.name}")
    assert set(approvals.STATUS) == set(ProposalState)


@pytest.mark.parametrize("mode", [HaltMode.HALT_MODE_CANCEL, HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_FAIL])
def test_nobody_owes_anything_in_a_flow_that_is_over(mode: HaltMode.ValueType) -> None:
    simulation = orders.reserved()
    simulation.say(simulation.halt(mode, "ola", "no longer wanted"))
    if mode != HaltMode.HALT_MODE_FAIL:
        undo = orders.effect_of(simulation, "StockReserved")
        simulation.say(simulation.undone(undo, orders.make("StockReleased")))
    assert orders.stands(simulation) in ("CANCELLED", "COMPENSATED", "FAILED")
    view = flow_view(simulation.flow)
    assert [run.status for run in view.step_runs if run.step == "discount"] == [StepRunStatus.STEP_RUN_STATUS_ABANDONED]
    assert not view.expectations
    assert not view.escalations
    assert not [approval for approval in view.approvals if approval.status == ApprovalStatus.APPROVAL_STATUS_PENDING]
