"""The words that complete a filter, and what a flow of a list waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handrail.console.flows.waits import wait_of
from handrail.console.flows.words import words
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.flow_service_pb2 import Expectation, Flow
from handrail.visibility.filter.fields import FIELDS, STATUSES
from tests.support import flows

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_the_words_are_those_of_the_filter_language() -> None:
    assert words([], []).keys() == FIELDS.keys()
    assert words([], [])["status"]["values"] == list(STATUSES)


def test_templates_and_agents_give_values() -> None:
    template = flows.template().proto
    template.search.append("amount.units")
    found = words([template], ["enrichment"])
    assert found["flow_type"]["values"] == ["refund"]
    assert found["step"]["values"] == ["enrich", "notify"]
    assert found["agent"]["values"] == ["enrichment"]
    assert found["amount.units"]["then"] == " = "


def expectation(*, agent: str = "", due: int | None = None, **fields: object) -> Expectation:
    found = Expectation(by_agent=agent, **fields)  # type: ignore[arg-type]
    if due is not None:
        found.due_time.CopyFrom(timestamp(NOON + timedelta(minutes=due)))
    return found


def test_people_come_before_agents_and_what_is_due_first_before_the_rest() -> None:
    late = expectation(agent="ledger", step="pay", due=-1)
    soon = expectation(agent="mail", step="notify", due=5)
    person = expectation(by_roles=["operator"], step="pay")
    first = wait_of(Flow(expectations=[soon, late]), NOON)
    assert first is not None
    assert (first.text, first.is_late, first.rest) == ("ledger: pay", True, 1)
    first = wait_of(Flow(expectations=[late, person]), NOON)
    assert first is not None
    assert (first.text, first.due, first.is_late) == ("operator: pay", None, False)
    votes = wait_of(Flow(expectations=[expectation(step="grant", due=5)]), NOON)
    assert votes is not None
    assert votes.text == "votes: grant"
    assert wait_of(Flow(), NOON) is None
