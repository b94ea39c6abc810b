"""P2 and P4: coordinators that lag, die and race each other end a flow as a single prompt one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.coordinator.decide import decide
from handrail.mesh.flow import Effect, Flow, RunState, StepRun
from handrail.mesh.fold import is_final, status
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import Choice
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.random_templates import REQUESTER, Spec, compiled, message, specs
from tests.support.simulation import Simulation, Taken

ANSWERS = st.sampled_from(["answer", "answer", "fail", "fail for good", "die", "say nothing"])


@dataclass(frozen=True)
class Script:
    """What agents do at each attempt, the same whoever coordinates; the last entry goes on for ever."""

    forward: list[str]
    undo: list[str]

    def of(self, answers: list[str], attempt: int) -> str:
        """What is done at this attempt."""
        return answers[min(attempt, len(answers)) - 1]


SCRIPTS = st.builds(Script, st.lists(ANSWERS, min_size=1, max_size=4), st.lists(ANSWERS, min_size=1, max_size=3))

Choose = Callable[[list[str]], str]
"""Who is next, among those who have something to do."""


class Race:
    """One flow; two coordinators, each with its own, older, view of it. What their decisions are based on is checked by
    nobody but the fold.
    """

    def __init__(self, spec: Spec, script: Script) -> None:
        self.simulation = Simulation(compiled(spec))
        self.simulation.coordinator = False
        self.views: dict[str, Flow] = {}
        self._script = script

    @property
    def flow(self) -> Flow:
        """The flow as it stands."""
        return self.simulation.flow

    def run(self, choose: Choose) -> None:
        """Go on until the flow is over."""
        self.simulation.store(self.simulation.start(message("shop.v1.T0", 1), requester=REQUESTER))
        self.views = {"first": self.flow, "second": self.flow}
        for _ in range(500):
            entry = self._next_of_others()
            ready = ["others"] if entry is not None else []
            ready += [
                name for name, view in self.views.items() if view is not self.flow or decide(view, self.simulation.now)
            ]
            if not ready:
                if is_final(self.flow):
                    return
                due = self.simulation.next_timer()
                assert due is not None, "P7: it fell silent"
                self.simulation.now = max(due, self.simulation.now)
                continue
            who = choose(ready)
            if who == "others" and entry is not None:
                self._store(entry)
            else:
                self._coordinate(who)
        raise AssertionError("it comes to no end")

    def _coordinate(self, name: str) -> None:
        """Decide on what this coordinator has seen, then look again: it may have died in between."""
        entry = decide(self.views[name], self.simulation.now)
        if entry is not None:
            self._store(entry)
        self.views[name] = self.flow

    def _store(self, entry: Entry) -> None:
        try:
            self.simulation.store(entry)
        except Taken:
            """Another one was first."""

    def _next_of_others(self) -> Entry | None:
        return next(self._entries(), None)

    def _entries(self) -> Iterator[Entry]:
        """What agents say, each thing once, and what an operator answers."""
        for run in self.flow.runs.values():
            if run.state is RunState.OWED:
                yield from self._said_of_run(run)
        for effect in self.flow.effects.values():
            if effect.deadline is not None:
                yield from self._said_of_undo(effect)
        for escalation in self.flow.escalations.values():
            choice = next(
                c
                for c in (Choice.CHOICE_MARK_UNDONE, Choice.CHOICE_ACCEPT, Choice.CHOICE_CANCEL)
                if c in escalation.choices
            )
            yield self.simulation.resolve(escalation.escalation_id, choice, "ola")

    def _said_of_run(self, run: StepRun) -> Iterator[Entry]:
        simulation = self.simulation
        match self._script.of(self._script.forward, run.attempt):
            case "answer":
                yield simulation.outcome(run, message(min(run.step.emits), 1))
            case "say nothing":
                return
            case what:
                yield simulation.failed(run, what, retryable=what != "fail for good", outcome_unknown=what == "die")

    def _said_of_undo(self, effect: Effect) -> Iterator[Entry]:
        match self._script.of(self._script.undo, effect.attempt):
            case "answer":
                yield self.simulation.undone(effect, StepCompleted())
            case "say nothing":
                return
            case what:
                yield self.simulation.undo_failed(effect, what, retryable=what != "fail for good")


def outcome(race: Race) -> dict[str, object]:
    """What counts of how a flow ended."""
    flow = race.flow
    return {
        "status": status(flow),
        "facts": list(flow.facts),
        "effects": {event_id: effect.state for event_id, effect in flow.effects.items()},
        "runs": {key: (run.state, run.attempt) for key, run in flow.runs.items()},
    }


@settings(max_examples=60)
@given(specs(linear=True), SCRIPTS, st.data())
def test_p2_p4_racing_coordinators_end_a_flow_as_one_does(spec: Spec, script: Script, data: st.DataObject) -> None:
    alone = Race(spec, script)
    alone.run(lambda ready: "first" if "first" in ready else ready[-1])
    racing = Race(spec, script)
    racing.run(lambda ready: data.draw(st.sampled_from(ready)))
    assert outcome(racing) == outcome(alone)
