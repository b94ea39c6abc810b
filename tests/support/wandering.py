"""Flows that go any way they can: random templates, and agents, people and coordinators that do what comes to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from hypothesis import strategies as st

from handrail.coordinator.decide import decide
from handrail.mesh.contracts import Contracts
from handrail.mesh.flow import Effect, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.template import Template
from handrail.v1.decision_pb2 import Choice, HaltMode
from handrail.v1.failure_pb2 import StepCompleted
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.shop import shop
from tests.support.simulation import Simulation, Taken

TYPES = tuple(f"T{number}" for number in range(10))
Spec = dict[str, Any]
"""A template as JSON."""

REQUESTER = "kim"
LEADS = ("ann", "bob", REQUESTER)


@cache
def contracts() -> Contracts:
    """Ten messages that differ in nothing but their names."""
    return shop(**{name: {"n": "int64", "who": "string"} for name in TYPES})


def message(full_name: str, n: int, who: str = REQUESTER) -> Message:
    """One of them."""
    return contracts().message_class(full_name)(n=n, who=who)


def _t(name: str) -> str:
    return f"shop.v1.{name}"


def _seconds(number: int) -> str:
    return f"{number}s"


_RETRY = st.fixed_dictionaries({"max_attempts": st.integers(1, 3), "initial_backoff": st.just("5s")})


@st.composite
def specs(draw: st.DrawFn, *, linear: bool = False) -> Spec:
    """A template with one to four steps, to be compiled. A `linear` one is a chain without gates and rules."""
    known = [TYPES[0]]
    unused = list(TYPES[1:])
    steps = []
    for number in range(draw(st.integers(1, 4))):
        emits = [unused.pop(0)] if linear or draw(st.booleans()) or len(unused) < 2 else [unused.pop(0), unused.pop(0)]
        steps.append(_step(draw, number, known[-1:] if linear else known, emits, linear=linear))
        known += emits
    gates = [] if linear else [_gate(draw, number, known[1:]) for number in range(draw(st.integers(0, 2)))]
    rules = [] if linear else [_rule(draw, number, known) for number in range(draw(st.integers(0, 2)))]
    if gates and draw(st.booleans()):
        last = unused.pop(0)
        refusal = _step(draw, 9, [], [last], linear=True)
        steps.append(refusal | {"after": ["handrail.v1.ApprovalRefused"], "after_all": []})
    return {
        "name": "wander",
        "version": 1,
        "starts_with": [_t(TYPES[0])],
        "started_by": ["a9"],
        "completes_with": steps[-1]["emits"],
        "deadline": "400s",
        "steps": steps,
        "gates": gates,
        "rules": rules,
        "compensation_order": f"COMPENSATION_ORDER_{draw(st.sampled_from(['NEWEST_FIRST', 'PARALLEL']))}",
    }


def compiled(spec: Spec) -> Template:
    """The template of a specification."""
    return Template.compile(ParseDict(spec, FlowTemplate()), contracts())


def _step(draw: st.DrawFn, number: int, known: list[str], emits: list[str], *, linear: bool) -> Spec:
    effect = draw(st.sampled_from(["NONE", "UNDOABLE", "IRREVERSIBLE"]))
    step: Spec = {
        "name": f"s{number}",
        "agent": f"a{number % 2}",
        "emits": [_t(name) for name in emits],
        "effect": f"EFFECT_{effect}",
        "timeout": _seconds(draw(st.sampled_from([20, 60]))),
        "retry": draw(_RETRY),
        "on_failure": f"FAILURE_ACTION_{draw(st.sampled_from(['ESCALATE', 'COMPENSATE', 'FAIL']))}",
    }
    if effect == "UNDOABLE":
        step["undo"] = {"timeout": "20s", "retry": draw(_RETRY)}
    if known and not linear and draw(st.integers(0, 3)) == 0:
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        counts = ["1", "2", f"latest['{_t(TYPES[0])}'].n"]
        step["after_all"] = [{"type": _t(name), "count": draw(st.sampled_from(counts))} for name in chosen]
    else:
        triggers = st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True) if known else st.just([])
        step["after"] = [_t(name) for name in draw(triggers)]
    return step


def _gate(draw: st.DrawFn, number: int, known: list[str]) -> Spec:
    return {
        "name": f"g{number}",
        "on": _t(draw(st.sampled_from(known))),
        "when": draw(st.sampled_from(["", "event.n > 1", "6 / event.n > 2"])),
        "approvers": {
            "roles": ["lead"],
            "quorum": draw(st.integers(1, 2)),
            "not_the_requester": draw(st.booleans()),
            "requester_field": draw(st.sampled_from(["", "who"])),
        },
        "expires_after": _seconds(draw(st.sampled_from([50, 90]))),
        "on_expiry": f"EXPIRY_ACTION_{draw(st.sampled_from(['REJECT', 'APPROVE', 'ESCALATE', 'WAIT']))}",
        "on_reject": f"REJECT_ACTION_{draw(st.sampled_from(['CONTINUE', 'COMPENSATE', 'FAIL']))}",
    }


def _rule(draw: st.DrawFn, number: int, known: list[str]) -> Spec:
    some = _t(draw(st.sampled_from(known)))
    conditions = [
        "event.n > 2",
        f"flow.counts['{some}'] > 1",
        f"flow.latest['{some}'].n > 1",
        "flow.elapsed > duration('60s')",
    ]
    return {
        "name": f"r{number}",
        "on": [_t(name) for name in draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))],
        "when": draw(st.sampled_from(conditions)),
        "then": f"RULE_ACTION_{draw(st.sampled_from(['ESCALATE', 'COMPENSATE', 'FAIL', 'COMPLETE']))}",
    }


_NOTHING = StepCompleted()


@dataclass(frozen=True)
class Act:
    """Something that can happen now. `label` is what a failing example shows."""

    label: str
    do: Callable[[], object]

    def __repr__(self) -> str:
        return self.label


class Wanderer:
    """One flow and everything that can happen to it. Every state it was in is kept."""

    def __init__(self, template: Template) -> None:
        self.simulation = Simulation(template)
        self.states: list[Flow] = [self.simulation.flow]
        self.simulation.on_stored = lambda _: self.states.append(self.flow)
        self._heartbeats = 0

    @property
    def flow(self) -> Flow:
        """The flow as it stands."""
        return self.simulation.flow

    def begin(self, n: int) -> None:
        """The first event."""
        self.simulation.say(self.simulation.start(message(_t(TYPES[0]), n), requester=REQUESTER))

    def next_act(self, data: st.DataObject) -> Act:
        """One of the things that can happen now; more often one that leads somewhere."""
        groups = [
            *[list(self._of_work())] * 4,
            *[list(self._of_trouble())] * 2,
            *[list(self._of_time())] * 2,
            *[list(self._of_people())] * 2,
            list(self._of_strays()),
        ]
        return data.draw(st.sampled_from(data.draw(st.sampled_from([group for group in groups if group]))))

    def orderly(self) -> Iterator[Act]:
        """What brings the flow to its end: agents answer, people agree, operators take what is offered last."""
        flow = self.flow
        for run in flow.runs.values():
            if run.state is RunState.OWED and not (flow.is_halted and not run.may_have_effect):
                yield from self._missing_outputs(run)
        for effect in flow.effects.values():
            if effect.deadline is not None:
                yield self._act(f"undone {effect.recorded.event_id[:4]}", lambda e=effect: self._undone(e))
        for proposal in flow.proposals.values():
            if proposal.state is ProposalState.PENDING:
                yield self._act("reject", lambda p=proposal: self._vote(p, "cat", approve=False))
        for escalation in flow.escalations.values():
            choice = Choice.CHOICE_ACCEPT if Choice.CHOICE_ACCEPT in escalation.choices else Choice.CHOICE_CANCEL
            yield self._act(
                f"resolve {escalation.cause}", lambda e=escalation, c=choice: self._resolve(e.escalation_id, c)
            )
        if (due := self.simulation.next_timer()) is not None:
            yield Act("wait for the next timer", lambda: self.simulation.wait(due - self.simulation.now))

    def _act(self, label: str, do: Callable[[], object]) -> Act:
        def attempt() -> None:
            try:
                do()
            except Taken:
                """The stream refuses it: that is the end of it."""

        return Act(label, attempt)

    def _of_work(self) -> Iterator[Act]:
        """What agents and approvers are asked for."""
        for run in self.flow.runs.values():
            if run.state is RunState.OWED:
                yield from self._answers(run)
        for effect in self.flow.effects.values():
            if effect.deadline is not None:
                yield self._act(f"{_name(effect)} is undone", lambda e=effect: self._undone(e))
        for proposal in self.flow.proposals.values():
            if proposal.state is ProposalState.PENDING:
                for voter in LEADS:
                    yield self._act(f"{voter} agrees", lambda p=proposal, v=voter: self._vote(p, v, approve=True))
                yield self._act("ann refuses", lambda p=proposal: self._vote(p, "ann", approve=False))
        for escalation in self.flow.escalations.values():
            for choice in escalation.choices:
                name = f"ola answers {Choice.Name(choice)[7:]}"
                yield self._act(name, lambda e=escalation, c=choice: self._resolve(e.escalation_id, c))

    def _answers(self, run: StepRun) -> Iterator[Act]:
        say, simulation = self.simulation.say, self.simulation
        total = run.output_total or 1
        for full_name in sorted(run.step.emits):
            for n in (0, 1, 3):
                for index in range(total):
                    yield self._act(
                        f"{_name(run)} emits {full_name} {n}, {index + 1} of {total}",
                        lambda f=full_name, m=n, i=index: say(
                            simulation.outcome(run, message(f, m, "" if m else REQUESTER), index=i, total=total)
                        ),
                    )

    def _of_trouble(self) -> Iterator[Act]:
        """What goes wrong, as things do."""
        say, simulation = self.simulation.say, self.simulation
        for run in self.flow.runs.values():
            name = _name(run)
            if run.state is RunState.OWED:
                yield self._act(f"{name} fails", lambda r=run: say(simulation.failed(r, "no")))
                yield self._act(
                    f"{name} fails for good", lambda r=run: say(simulation.failed(r, "no", retryable=False))
                )
                yield self._act(f"{name} dies", lambda r=run: say(simulation.failed(r, "no", outcome_unknown=True)))
                yield self._act(f"{name} goes on", self._heartbeat(run))
                yield self._act(f"{name} gives nothing", lambda r=run: say(simulation.outcome(r, _NOTHING)))
                yield self._act(
                    f"{name} emits the first of two",
                    lambda r=run: say(simulation.outcome(r, message(min(r.step.emits), 1), index=0, total=2)),
                )
            yield self._act(f"{name} did not start", lambda r=run: say(simulation.not_started(r)))
        for effect in self.flow.effects.values():
            if effect.deadline is not None:
                yield self._act(f"undo of {_name(effect)} fails", lambda e=effect: say(simulation.undo_failed(e, "no")))
                yield self._act(
                    f"undo of {_name(effect)} fails for good",
                    lambda e=effect: say(simulation.undo_failed(e, "no", retryable=False)),
                )

    def _of_strays(self) -> Iterator[Act]:
        """What comes late, twice, from the wrong one, or out of nowhere."""
        say, simulation = self.simulation.say, self.simulation
        for run in self.flow.runs.values():
            name, first, last = _name(run), min(run.step.emits), max(run.step.emits)
            for number in {run.run, max(0, run.run - 1)}:
                for index, total in ((0, 1), (1, 2)):
                    yield self._act(
                        f"{name} emits {index + 1} of {total} in run {number}",
                        lambda r=run, f=last, i=index, t=total, o=number: say(
                            simulation.outcome(r, message(f, 2), index=i, total=t, number=o)
                        ),
                    )
            yield self._act(
                f"another agent answers {name}",
                lambda r=run, f=first: say(simulation.outcome(r, message(f, 1), agent="a8")),
            )
        for effect in self.flow.effects.values():
            yield self._act(f"{_name(effect)} is undone", lambda e=effect: self._undone(e))
        for proposal in self.flow.proposals.values():
            yield self._act(
                "bob agrees to something else", lambda p=proposal: self._vote(p, "bob", approve=True, digest="00")
            )
            yield self._act("bob agrees", lambda p=proposal: self._vote(p, "bob", approve=True))
        for back in (1, 2, 4):
            yield self._act(f"a coordinator that is {back} behind decides", lambda b=back: self._decide_late(b))
        yield self._act("a message claims another version", self._wrong_version)

    def _missing_outputs(self, run: StepRun) -> Iterator[Act]:
        total = run.output_total or 1
        first = min(run.step.emits)
        for index in range(total):
            if index not in run.outputs:
                yield self._act(
                    f"{run.step.name} answers {index + 1} of {total}",
                    lambda i=index: self.simulation.say(
                        self.simulation.outcome(run, message(first, 1), index=i, total=total)
                    ),
                )
        yield self._act(
            f"{run.step.name} gives up", lambda: self.simulation.say(self.simulation.failed(run, "no", retryable=False))
        )

    def _of_people(self) -> Iterator[Act]:
        for mode, keep in (
            (HaltMode.HALT_MODE_COMPENSATE, False),
            (HaltMode.HALT_MODE_CANCEL, False),
            (HaltMode.HALT_MODE_CANCEL, True),
        ):
            name = f"ola halts {HaltMode.Name(mode)[10:]}{' keeping' if keep else ''}"
            yield self._act(name, lambda m=mode, k=keep: self._halt(m, keep_effects=k))
        for step in sorted({fact.event.step for fact in self.flow.facts.values()} - {""}):
            name = f"ola goes back to {step}"
            yield self._act(name, lambda s=step: self._halt(HaltMode.HALT_MODE_COMPENSATE, to_step=s))
        for run in self.flow.runs.values():
            yield self._act(
                f"ola has {_name(run)} done again", lambda r=run: self.simulation.say(self.simulation.reopen(r, "ola"))
            )

    def _of_time(self) -> Iterator[Act]:
        simulation = self.simulation
        for seconds in (5, 30, 200):
            yield Act(f"{seconds} seconds pass", lambda s=seconds: simulation.wait(timedelta(seconds=s)))
        yield Act("the coordinator goes or comes", self._toggle)

    def _toggle(self) -> None:
        self.simulation.coordinator = not self.simulation.coordinator
        self.simulation.settle()

    def _decide_late(self, behind: int) -> None:
        """A coordinator that has not seen the newest messages decides, and nobody checks what it was based on."""
        if len(self.states) <= behind:
            return
        entry = decide(self.states[-1 - behind], self.simulation.now)
        if entry is not None:
            self.simulation.say(entry)

    def _wrong_version(self) -> None:
        run = next(iter(self.flow.runs.values()), None)
        if run is not None:
            entry = self.simulation.outcome(replace(run, run=77), message(min(run.step.emits), 1))
            entry.event.template_version = 2
            self.simulation.say(entry)

    def _heartbeat(self, run: StepRun) -> Callable[[], object]:
        def beat() -> None:
            self._heartbeats += 1
            self.simulation.say(self.simulation.progress(run, self._heartbeats))

        return beat

    def _undone(self, effect: Effect) -> None:
        self.simulation.say(self.simulation.undone(effect, _NOTHING))

    def _vote(self, proposal: Proposal, voter: str, *, approve: bool, digest: str = "") -> None:
        self.simulation.say(self.simulation.vote(proposal, voter, ["lead"], approve=approve, digest=digest))

    def _halt(self, mode: HaltMode.ValueType, *, to_step: str = "", keep_effects: bool = False) -> None:
        self.simulation.say(self.simulation.halt(mode, "ola", "so", to_step=to_step, keep_effects=keep_effects))

    def _resolve(self, escalation_id: str, choice: Choice.ValueType) -> None:
        self.simulation.say(self.simulation.resolve(escalation_id, choice, "ola"))


def _name(what: StepRun | Effect) -> str:
    sequence = what.trigger.sequence if isinstance(what, StepRun) else what.recorded.sequence
    return f"{what.step.name}/{sequence}"
