"""What-if: what a changed template does to small histories; and the fast way tells what the complete fold tells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.analysis.replay.changes import GateChange, RuleChange, changes
from handrail.analysis.replay.differences import differences
from handrail.analysis.replay.observed import observe
from handrail.analysis.replay.reasons import values_read
from handrail.analysis.replay.regular import try_regular
from handrail.analysis.replay.replayer import Replayer, Span
from handrail.analysis.replay.stored import Stored
from handrail.analysis.replay.trial import Trial
from handrail.mesh.flow import RunState
from handrail.mesh.template import Template
from handrail.v1.decision_pb2 import HaltMode, RuleAction
from tests.support.random_templates import Spec, compiled, full_name, message, revisions, specs
from tests.support.simulation import BEGINNING, Simulation
from tests.support.wandering import Wanderer

T0, T1, T2, T3 = (full_name(f"T{number}") for number in range(4))


def spec(*, gates: list[Spec] | None = None, rules: list[Spec] | None = None, version: int = 1) -> Spec:
    """Three steps in a row, T0 to T3."""
    steps = [
        {
            "name": f"s{n}",
            "agent": f"a{n}",
            "after": [full_name(f"T{n}")],
            "emits": [full_name(f"T{n + 1}")],
            "effect": "EFFECT_NONE",
            "timeout": "60s",
        }
        for n in range(3)
    ]
    return {
        "name": "wander",
        "version": version,
        "starts_with": [T0],
        "started_by": ["a9"],
        "completes_with": [T3],
        "deadline": "400s",
        "steps": steps,
        "gates": gates or [],
        "rules": rules or [],
    }


def gate(on: str, when: str, name: str = "g") -> Spec:
    return {
        "name": name,
        "on": on,
        "when": when,
        "approvers": {"roles": ["lead"]},
        "expires_after": "50s",
    }


def rule(on: str, when: str, then: str, name: str = "r") -> Spec:
    return {"name": name, "on": [on], "when": when, "then": f"RULE_ACTION_{then}"}


class Told:
    """A flow of that template that was told to its end: T0, T1, T2, T3, ten seconds apart, each with its number."""

    def __init__(self, recorded: Spec, *numbers: int, meanwhile: Callable[[Simulation], object] | None = None) -> None:
        self.template = compiled(recorded)
        self.simulation = Simulation(self.template)
        self.simulation.say(self.simulation.start(message(T0, numbers[0]), requester="kim"))
        for place, number in enumerate(numbers[1:], 1):
            self.simulation.wait(timedelta(seconds=10))
            if meanwhile is not None and place == 2:
                meanwhile(self.simulation)
            run = next(run for run in self.simulation.flow.runs.values() if run.state is RunState.OWED)
            self.simulation.say(self.simulation.outcome(run, message(full_name(f"T{place}"), number)))

    def under(self, changed: Spec) -> tuple[Trial, Trial]:
        """The trials of its own version and of a changed one, the same by both ways where the flow is regular."""
        return tried(stored(self.simulation), self.template, compiled(changed))


def stored(simulation: Simulation) -> list[Stored]:
    return [
        Stored.of(each.address.subject, each.event.SerializeToString(), sequence=each.sequence, time=each.time)
        for each in simulation.history
    ]


def tried(messages: list[Stored], template: Template, changed: Template) -> tuple[Trial, Trial]:
    observed = observe(messages, {template.version: template}, changed)
    assert observed is not None
    regular = try_regular(messages, {template.version: template}, changed)
    if regular is not None:
        assert (verdicts(regular[0]), verdicts(regular[1])) == (verdicts(observed.then), verdicts(observed.now))
    return observed.then, observed.now


def verdicts(trial: Trial) -> Any:
    """All that a trial says."""
    return (
        {key: asked.error for key, asked in trial.asked.items()},
        {key: (tripped.recorded.event_id, tripped.facts, tripped.error) for key, tripped in trial.tripped.items()},
        trial.end.rule.name if trial.end else "",
    )


def tripped(trial: Trial) -> dict[str, str]:
    """The rules that tripped, and at which type."""
    return {each.rule.name: each.recorded.type for each in trial.tripped.values()}


def test_a_gate_is_asked_about_what_was_a_plain_fact() -> None:
    then, now = Told(spec(), 1, 5, 2, 1).under(spec(gates=[gate(T1, "event.n > 4")], version=2))
    assert not then.asked
    assert [name for name, _ in now.asked] == ["g"]
    [change] = changes(then, now)
    assert isinstance(change, GateChange)
    assert change.recorded.type == T1


def test_a_gate_that_is_gone_or_lets_pass_no_longer_asks() -> None:
    told = Told(spec(gates=[gate(T1, "event.n > 4")]), 1, 5)
    assert len(told.under(spec(version=2))[0].asked) == 1
    assert not told.under(spec(version=2))[1].asked
    assert not told.under(spec(gates=[gate(T1, "event.n > 5")], version=2))[1].asked


def test_a_condition_that_cant_be_evaluated_asks_and_trips_and_says_why() -> None:
    changed = spec(gates=[gate(T1, "6 / event.n > 2")], rules=[rule(T2, "6 / event.n > 2", "ESCALATE")], version=2)
    _, now = Told(spec(), 1, 0, 0, 1).under(changed)
    assert ["division" in asked.error or "divide" in asked.error for asked in now.asked.values()] == [True]
    assert [bool(each.error) for each in now.tripped.values()] == [True]


def test_after_a_rule_that_ends_the_flow_nothing_is_evaluated() -> None:
    rules = [rule(T1, "event.n > 1", "FAIL", "end"), rule(T2, "true", "COMPENSATE", "late")]
    then, now = Told(spec(), 1, 2, 3, 4).under(spec(gates=[gate(T2, "")], rules=rules, version=2))
    assert tripped(now) == {"end": T1}
    assert not now.asked
    assert not then.tripped


def test_a_hold_goes_on() -> None:
    rules = [rule(T1, "true", "ESCALATE", "hold"), rule(T2, "flow.counts['shop.v1.T1'] == 1", "COMPLETE", "end")]
    _, now = Told(spec(), 1, 2, 3, 4).under(spec(rules=rules, version=2))
    assert tripped(now) == {"hold": T1, "end": T2}


def test_time_elapsed_and_latest_facts_are_those_of_the_stream() -> None:
    rules = [rule(T3, "flow.elapsed >= duration('30s') && flow.latest['shop.v1.T1'].n == 2", "ESCALATE")]
    assert tripped(Told(spec(), 1, 2, 3, 4).under(spec(rules=rules, version=2))[1]) == {"r": T3}
    rules[0]["when"] = rules[0]["when"].replace("30s", "31s")
    assert not Told(spec(), 1, 2, 3, 4).under(spec(rules=rules, version=2))[1].tripped


def test_gates_see_the_flow_as_it_was_before_what_they_guard() -> None:
    gates = [
        gate(T2, "event.n > flow.first.n", "first"),
        gate(T2, "flow.counts['shop.v1.T2'] > 0", "counts"),
        gate(T3, "flow.facts['shop.v1.T2'].map(f, f.n).sum() + flow.latest['shop.v1.T1'].n == 5", "sum"),
        gate(T3, "flow.elapsed >= duration('31s')", "late"),
    ]
    _, now = Told(spec(), 1, 2, 3, 4).under(spec(gates=gates, version=2))
    assert [name for name, _ in now.asked] == ["first", "sum"]
    first, added = (
        values_read(each.gate.when, each.recorded, now.template.contracts, each.facts)
        for each in now.asked.values()
        if each.gate.when is not None
    )
    assert first == "event.n = 3, flow.first.n = 1"
    assert added == "flow.latest['shop.v1.T1'].n = 2, flow.facts['shop.v1.T2'] has 1"


def test_what_a_person_stopped_is_not_evaluated_on() -> None:
    def cancel(simulation: Simulation) -> None:
        simulation.coordinator = False
        simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "so"))

    told = Told(spec(), 1, 2, 3, meanwhile=cancel)
    assert not told.under(spec(rules=[rule(T2, "true", "FAIL")], version=2))[1].tripped


def test_what_came_after_a_halt_by_a_rule_is_evaluated_by_a_template_without_it() -> None:
    held = Told(spec(rules=[rule(T1, "true", "COMPENSATE", "gone")]), 1, 2)
    assert tripped(held.under(spec(rules=[rule(T1, "event.n > 2", "FAIL", "new")], version=2))[0]) == {"gone": T1}
    assert not held.under(spec(version=2))[1].tripped


def test_a_rule_with_another_consequence_is_a_difference_and_with_the_same_none() -> None:
    told = Told(spec(rules=[rule(T1, "event.n > 1", "ESCALATE")]), 1, 2)
    [change] = changes(*told.under(spec(rules=[rule(T1, "event.n > 0", "FAIL")], version=2)))
    assert isinstance(change, RuleChange)
    assert change.now is not None
    assert change.now.rule.then == RuleAction.RULE_ACTION_FAIL
    assert not list(changes(*told.under(spec(rules=[rule(T1, "event.n > 0", "ESCALATE")], version=2))))


def test_a_difference_names_the_values_and_what_was_recorded() -> None:
    told = Told(spec(gates=[gate(T1, "event.n > 4")]), 1, 5)
    observed = observe(
        stored(told.simulation), {1: told.template}, compiled(spec(gates=[gate(T1, "event.n > 9")], version=2))
    )
    assert observed is not None
    [difference] = differences(observed)
    assert '"event.n > 4" holds with event.n = 5; now: "event.n > 9" does not hold' in difference.reason
    assert difference.recorded == "a proposal, pending"


def test_flows_are_counted_by_when_they_began() -> None:
    told = Told(spec(), 1, 2, 3, 4)
    second = timedelta(seconds=1)
    for span, flows in (
        (Span(), 1),
        (Span(BEGINNING, BEGINNING + second), 1),
        (Span(BEGINNING + second, None), 0),
        (Span(None, BEGINNING), 0),
    ):
        replayer = Replayer(compiled(spec(version=2)), {1: told.template}, span)
        tally, _ = replayer.replay([stored(told.simulation)], limit=1)
        assert tally.flows == flows


def test_a_plain_and_an_approved_flow_are_told_the_fast_way() -> None:
    plain = Told(spec(), 1, 2, 3, 4)
    assert try_regular(stored(plain.simulation), {1: plain.template}, plain.template) is not None
    asking = Told(spec(gates=[gate(T1, "")]), 1, 2)
    [proposal] = asking.simulation.flow.proposals.values()
    asking.simulation.say(asking.simulation.vote(proposal, "ann", ["lead"]))
    assert asking.simulation.history[-1].kind == "released"
    assert try_regular(stored(asking.simulation), {1: asking.template}, asking.template) is not None


@settings(max_examples=150)
@given(specs(), specs(), st.data())
def test_the_fast_way_says_what_the_complete_fold_says(recorded: Spec, changed: Spec, data: st.DataObject) -> None:
    template, tried_one = compiled(recorded), compiled(changed)
    moved = compiled(data.draw(revisions(recorded)))
    wanderer = Wanderer(template, moved)
    wanderer.begin(data.draw(st.integers(0, 3)))
    orderly = data.draw(st.booleans(), label="orderly")
    for _ in range(data.draw(st.integers(1, 12), label="length")):
        acts = list(wanderer.orderly()) if orderly else []
        act = data.draw(st.sampled_from(acts)) if acts else wanderer.next_act(data)
        act.do()
    messages = stored(wanderer.simulation)
    versions = wanderer.simulation.versions | {template.version: template}
    observed = observe(messages, versions, tried_one)
    assert observed is not None
    assert observed.flow == wanderer.flow
    regular = try_regular(messages, versions, tried_one)
    if regular is not None:
        assert verdicts(regular[0]) == verdicts(observed.then)
        assert verdicts(regular[1]) == verdicts(observed.now)
