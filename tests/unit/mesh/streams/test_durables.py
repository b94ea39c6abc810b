from handrail.mesh.permissions import matches
from handrail.mesh.streams.durables import DECIDE, TRACK, agent_durable, agent_filters, coordinator_filters
from handrail.mesh.template import APPROVAL_REFUSED
from handrail.v1.template_pb2 import Step
from tests.support import flows
from tests.support.flows import ENRICHED, RECEIVED


def test_an_agent_gets_what_triggers_its_steps_and_the_commands_for_it() -> None:
    assert agent_filters([flows.template()]) == {
        "enrichment": {
            f"flow.refund.*.event.*.*.{RECEIVED}",
            "flow.refund.*.retry.enrichment.>",
            "flow.refund.*.undo.enrichment.>",
        },
        "notification": {
            f"flow.refund.*.event.*.*.{ENRICHED}",
            "flow.refund.*.retry.notification.>",
            "flow.refund.*.undo.notification.>",
        },
    }


def test_what_a_gate_guards_is_delivered_as_released_too() -> None:
    filters = agent_filters([flows.template(gated=True)])["notification"]
    assert f"flow.refund.*.released.*.*.{ENRICHED}" in filters
    # A plain event of that type breaks the gate: it is delivered so that it is seen and quarantined.
    assert f"flow.refund.*.event.*.*.{ENRICHED}" in filters
    assert f"flow.refund.*.proposal.*.*.{ENRICHED}" not in filters


def test_a_gate_of_any_version_counts_for_all_versions_of_its_flow_type() -> None:
    filters = agent_filters([flows.template(version=1), flows.template(version=2, gated=True)])
    assert f"flow.refund.*.released.*.*.{ENRICHED}" in filters["notification"]
    other = agent_filters([flows.template("audit"), flows.template("refund", gated=True)])["notification"]
    assert f"flow.audit.*.released.*.*.{ENRICHED}" not in other


def test_filters_are_the_union_over_all_templates() -> None:
    both = agent_filters([flows.template("refund"), flows.template("audit", 3)])["enrichment"]
    assert (
        both
        == agent_filters([flows.template("refund")])["enrichment"]
        | agent_filters([flows.template("audit", 3)])["enrichment"]
    )


def test_a_refusal_that_a_step_waits_for_is_the_coordinators_decision() -> None:
    template = flows.template(extra=[Step(name="refuse", agent="notification", after=[APPROVAL_REFUSED])])
    filters = agent_filters([template])["notification"]
    assert f"flow.refund.*.decision.coordinator.*.{APPROVAL_REFUSED}" in filters
    assert not any(matches(each, f"flow.refund.F.event.liar.E.{APPROVAL_REFUSED}") for each in filters)


def test_filters_of_one_durable_never_overlap() -> None:
    for filters in [*agent_filters([flows.template(gated=True)]).values(), *coordinator_filters().values()]:
        listed = sorted(filters)
        for one in listed:
            subject = one.replace(">", "x").replace("*", "y")
            assert [each for each in listed if matches(each, subject)] == [one]


def test_decide_gets_what_needs_a_decision_and_not_the_happy_path() -> None:
    filters = coordinator_filters()

    def gets(durable: str, kind: str, message: str) -> bool:
        return any(matches(each, f"flow.refund.F.{kind}.coordinator.E.{message}") for each in filters[durable])

    for kind in ("proposal", "failure", "undone", "divergence", "released", "progress"):
        assert gets(DECIDE, kind, ENRICHED)
        assert not gets(TRACK, kind, ENRICHED)
    for decision in ("ApprovalGiven", "FlowHalted", "Resolved", "StepTimedOut", "RuleTripped", "StepReopened"):
        assert gets(DECIDE, "decision", f"handrail.v1.{decision}")
    for decision in ("ApprovalRequested", "CompensationStarted", "Escalated", "FlowClosed"):
        assert not gets(DECIDE, "decision", f"handrail.v1.{decision}")
    assert gets(TRACK, "event", ENRICHED)
    assert not gets(DECIDE, "event", ENRICHED)
    for kind in ("retry", "undo"):
        assert not gets(TRACK, kind, ENRICHED)
        assert not gets(DECIDE, kind, ENRICHED)


def test_track_has_a_single_filter_because_several_cost_the_broker_a_look_at_every_subject() -> None:
    assert coordinator_filters()[TRACK] == {"flow.*.*.event.>"}


def test_the_name_of_an_agents_durable() -> None:
    assert agent_durable("ledger") == "agent-ledger"
