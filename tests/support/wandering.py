"""Random flows: agents, people and coordinators act at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from google.protobuf.message import Message
from hypothesis import strategies as st

from handrail.coordinator.decide import decide
from handrail.mesh.flow import Effect, Escalation, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import Choice, HaltMode
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.random_templates import REQUESTER, TYPES, full_name, message
from tests.support.simulation import Simulation, Taken

LEADS = ("ann", "bob", REQUESTER)


@dataclass(frozen=True)
class Act:
    """Something that can happen now. `label` is what a failing example shows."""

    label: str
    do: Callable[[], object]

    def __repr__(self) -> str:
        return self.label


class Wanderer:
    """One flow and everything that can happen to it. All its states are kept."""

    def __init__(self, template: Template, *others: Template) -> None:
        self.simulation = Simulation(template)
        self.simulation.versions |= {other.version: other for other in others}
        self.states: list[Flow] = [self.simulation.flow]
        self.simulation.on_stored = lambda _: self.states.append(self.flow)
        self._heartbeats = 0

    @property
    def flow(self) -> Flow:
        """The flow in its current state."""
        return self.simulation.flow

    def begin(self, n: int) -> None:
        """The first event."""
        self.simulation.say(self.simulation.start(message(full_name(TYPES[0]), n), requester=REQUESTER))

    def next_act(self, data: st.DataObject) -> Act:
        """Does one of the things that can happen now, and prefers those that make progress."""
        groups = [
            *[list(self._work())] * 4,
            *[list(self._trouble())] * 2,
            *[list(self._time())] * 2,
            *[list(self._people())] * 2,
            list(self._strays()),
        ]
        return data.draw(st.sampled_from(data.draw(st.sampled_from([group for group in groups if group]))))

    def orderly(self) -> Iterator[Act]:
        """Brings the flow to its end: agents answer, people refuse, operators accept or cancel."""
        flow = self.flow
        for run in flow.runs.values():
            if run.state is RunState.OWED and not (flow.is_halted and not run.may_have_effect):
                yield from self._answers(run)
                yield Act(f"{_name(run)} gives up", partial(self._fail, run, retryable=False))
        for effect in flow.effects.values():
            if effect.deadline is not None:
                yield Act(f"{_name(effect)} is undone", partial(self._undone, effect))
        for proposal in flow.proposals.values():
            if proposal.state is ProposalState.PENDING:
                yield Act("cat refuses", partial(self._vote, proposal, "cat", approve=False))
        for escalation in flow.escalations.values():
            choice = Choice.CHOICE_ACCEPT if Choice.CHOICE_ACCEPT in escalation.choices else Choice.CHOICE_CANCEL
            yield self._answer(escalation, choice)
        if (due := self.simulation.next_timer()) is not None:
            yield Act("wait for the next timer", partial(self.simulation.wait, due - self.simulation.now))

    def _work(self) -> Iterator[Act]:
        """Actions that agents, approvers and operators are asked for."""
        for run in self.flow.runs.values():
            if run.state is RunState.OWED:
                yield from self._answers(run)
        for effect in self.flow.effects.values():
            if effect.deadline is not None:
                yield Act(f"{_name(effect)} is undone", partial(self._undone, effect))
        for proposal in self.flow.proposals.values():
            if proposal.state is ProposalState.PENDING:
                for voter in LEADS:
                    yield Act(f"{voter} agrees", partial(self._vote, proposal, voter))
                yield Act("ann refuses", partial(self._vote, proposal, "ann", approve=False))
        for escalation in self.flow.escalations.values():
            for choice in escalation.choices:
                yield self._answer(escalation, choice)

    def _answers(self, run: StepRun) -> Iterator[Act]:
        total = run.output_total or 1
        for message_type in sorted(run.step.emits):
            for n in (1, 0, 3):
                for index in range(total):
                    if index not in run.outputs:
                        yield self._emission(run, message_type, n, index=index, total=total)

    def _trouble(self) -> Iterator[Act]:
        """Ordinary failures."""
        for run in self.flow.runs.values():
            name = _name(run)
            if run.state is RunState.OWED:
                yield Act(f"{name} fails", partial(self._fail, run))
                yield Act(f"{name} fails for good", partial(self._fail, run, retryable=False))
                yield Act(f"{name} dies", partial(self._fail, run, outcome_unknown=True))
                yield Act(f"{name} goes on", partial(self._heartbeat, run))
                yield Act(f"{name} gives nothing", partial(self._emit, run, StepCompleted()))
                yield self._emission(run, min(run.step.emits), 1, total=2)
            yield Act(f"{name} did not start", partial(self._not_started, run))
        for effect in self.flow.effects.values():
            if effect.deadline is not None:
                yield Act(f"undo of {_name(effect)} fails", partial(self._undo_fails, effect))
                yield Act(f"undo of {_name(effect)} fails for good", partial(self._undo_fails, effect, retryable=False))

    def _strays(self) -> Iterator[Act]:
        """Messages that come late, twice, from the wrong sender, or unasked for."""
        for run in self.flow.runs.values():
            for number in {run.run, max(0, run.run - 1)}:
                for index, total in ((0, 1), (1, 2)):
                    yield self._emission(run, max(run.step.emits), 2, index=index, total=total, number=number)
            another = message(min(run.step.emits), 1)
            yield Act(f"another agent answers {_name(run)}", partial(self._emit, run, another, agent="a8"))
            yield Act("a message claims another version", partial(self._wrong_version, run))
        for effect in self.flow.effects.values():
            yield Act(f"{_name(effect)} is undone", partial(self._undone, effect))
        for proposal in self.flow.proposals.values():
            yield Act("bob agrees to something else", partial(self._vote, proposal, "bob", digest="00"))
            yield Act("bob agrees", partial(self._vote, proposal, "bob"))
        for behind in (1, 2, 4):
            yield Act(f"a coordinator that is {behind} behind decides", partial(self._decide_late, behind))

    def _people(self) -> Iterator[Act]:
        """Actions that operators take on their own."""
        compensate, cancel = HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL
        yield Act("ola compensates", partial(self._halt, compensate))
        yield Act("ola cancels", partial(self._halt, cancel))
        yield Act("ola cancels, keeping effects", partial(self._halt, cancel, keep_effects=True))
        for step in sorted({fact.event.step for fact in self.flow.facts.values()} - {""}):
            yield Act(f"ola goes back to {step}", partial(self._halt, compensate, to_step=step))
        for version in self.simulation.versions:
            yield Act(f"ola moves it to version {version}", partial(self._migrate, version))
        for run in self.flow.runs.values():
            yield Act(f"ola has {_name(run)} done again", partial(self._reopen, run))

    def _time(self) -> Iterator[Act]:
        for seconds in (5, 30, 200):
            yield Act(f"{seconds} seconds pass", partial(self.simulation.wait, timedelta(seconds=seconds)))
        yield Act("the coordinator goes or comes", self._toggle)

    def _emission(
        self, run: StepRun, message_type: str, n: int, *, index: int = 0, total: int = 1, number: int | None = None
    ) -> Act:
        label = f"{_name(run)} emits {message_type} {n}, {index + 1} of {total}"
        # If the gate asks for nothing, it names nobody: the requester is unknown.
        content = message(message_type, n, REQUESTER if n else "")
        return Act(label, partial(self._emit, run, content, index=index, total=total, number=number))

    def _answer(self, escalation: Escalation, choice: Choice.ValueType) -> Act:
        label = f"ola answers {Choice.Name(choice)} to {escalation.cause}"
        return Act(label, partial(self._resolve, escalation, choice))

    def _say(self, entry: Entry) -> None:
        with suppress(Taken):  # The stream refuses it, and nothing follows.
            self.simulation.say(entry)

    def _emit(
        self,
        run: StepRun,
        content: Message,
        *,
        agent: str = "",
        index: int = 0,
        total: int = 1,
        number: int | None = None,
    ) -> None:
        self._say(self.simulation.outcome(run, content, agent=agent, index=index, total=total, number=number))

    def _fail(self, run: StepRun, *, retryable: bool = True, outcome_unknown: bool = False) -> None:
        self._say(self.simulation.failed(run, "no", retryable=retryable, outcome_unknown=outcome_unknown))

    def _not_started(self, run: StepRun) -> None:
        self._say(self.simulation.not_started(run))

    def _heartbeat(self, run: StepRun) -> None:
        self._heartbeats += 1
        self._say(self.simulation.progress(run, self._heartbeats))

    def _undone(self, effect: Effect) -> None:
        self._say(self.simulation.undone(effect, StepCompleted()))

    def _undo_fails(self, effect: Effect, *, retryable: bool = True) -> None:
        self._say(self.simulation.undo_failed(effect, "no", retryable=retryable))

    def _vote(self, proposal: Proposal, voter: str, *, approve: bool = True, digest: str = "") -> None:
        self._say(self.simulation.vote(proposal, voter, ["lead"], approve=approve, digest=digest))

    def _halt(self, mode: HaltMode.ValueType, *, to_step: str = "", keep_effects: bool = False) -> None:
        self._say(self.simulation.halt(mode, "ola", "so", to_step=to_step, keep_effects=keep_effects))

    def _resolve(self, escalation: Escalation, choice: Choice.ValueType) -> None:
        self._say(self.simulation.resolve(escalation.escalation_id, choice, "ola"))

    def _reopen(self, run: StepRun) -> None:
        self._say(self.simulation.reopen(run, "ola"))

    def _migrate(self, version: int) -> None:
        self._say(self.simulation.migrate(version, "ola"))

    def _wrong_version(self, run: StepRun) -> None:
        entry = self.simulation.outcome(replace(run, run=77), message(min(run.step.emits), 1))
        entry.event.template_version = 2
        self._say(entry)

    def _toggle(self) -> None:
        self.simulation.coordinator = not self.simulation.coordinator
        self.simulation.settle()

    def _decide_late(self, behind: int) -> None:
        """A coordinator that has not seen the newest messages decides, and the broker does not check the sequence."""
        if behind < len(self.states):
            entry = decide(self.states[-1 - behind], self.simulation.now, self.simulation.absences)
            if entry is not None:
                self._say(entry)


def _name(what: StepRun | Effect) -> str:
    sequence = what.trigger.sequence if isinstance(what, StepRun) else what.recorded.sequence
    return f"{what.step.name}/{sequence}"
