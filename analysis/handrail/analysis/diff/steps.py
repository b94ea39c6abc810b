"""The changes of the steps of a template, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from handrail.analysis.diff.pairs import Change, pair
from handrail.analysis.diff.phrases import Names, article, enumerated, number, spoken, times
from handrail.mesh.template import Template
from handrail.mesh.template.specs import STEP_COMPLETED, JoinSpec, RetrySpec, StepSpec, UndoSpec
from handrail.v1.template_pb2 import Effect, FailureAction

_DOES = {
    Effect.EFFECT_NONE: "It changes nothing outside.",
    Effect.EFFECT_UNDOABLE: "Its effect can be undone.",
    Effect.EFFECT_IRREVERSIBLE: "Its effect can't be undone.",
}
_EFFECT = {
    Effect.EFFECT_NONE: "is declared to change nothing outside",
    Effect.EFFECT_UNDOABLE: "is declared to have an undoable effect",
    Effect.EFFECT_IRREVERSIBLE: "is declared to have an irreversible effect",
}
_ON_FAILURE = {
    FailureAction.FAILURE_ACTION_ESCALATE: ("a person is asked", "a person was asked"),
    FailureAction.FAILURE_ACTION_COMPENSATE: ("the flow's effects are undone", "the flow's effects were undone"),
    FailureAction.FAILURE_ACTION_FAIL: ("the flow ends as failed", "the flow ended as failed"),
}


def step_changes(old: Template, new: Template, names: Names) -> Iterator[Change]:
    """The changes, step by step."""
    pairs = pair(old.steps, new.steps, _likeness)
    for was, now in pairs.renamed:
        yield Change(f"steps.{now}", f"Step {was} is renamed to {now}.")
    for step in pairs.gone:
        yield Change(f"steps.{step.name}", _gone(step, new, names))
    for step in pairs.new:
        yield Change(f"steps.{step.name}", _new(step, names))
    for was_step, step in pairs.kept:
        yield from _Compared(was_step, step, names).changes()


def _likeness(step: StepSpec) -> object:
    """Everything of a step except its name."""
    return replace(step, name="", joins=()), _counts(step)


def _counts(step: StepSpec) -> dict[str, str]:
    return {join.type: _count(join) for join in step.joins}


def _count(join: JoinSpec) -> str:
    return str(join.count.fixed) if join.count.fixed is not None else join.count.text.strip()


def _new(step: StepSpec, names: Names) -> str:
    trigger = "each " + names.any_of(step.after) if step.after else _joined(_counts(step), names)
    answers = (
        f"agent {step.agent} is done with it"
        if step.emits == {STEP_COMPLETED}
        else f"agent {step.agent} answers {names.any_of(step.emits)}"
    )
    return (
        f"A new step {step.name} runs after {trigger}: {answers} within {spoken(step.timeout)}. {_DOES[step.effect]} "
        "Flows that get there are complete only when it is done."
    )


def _gone(step: StepSpec, new: Template, names: Names) -> str:
    after = names.any_of(step.after) if step.after else _joined(_counts(step), names)
    text = f"Step {step.name} is gone: agent {step.agent} is no longer asked after {after}."
    missing = [each for each in step.emits if each != STEP_COMPLETED and not new.emitters_of(each)]
    return f"{text} Nobody answers {names.any_of(missing)} any longer." if missing else text


def _joined(counts: dict[str, str], names: Names) -> str:
    """The inputs of a join: a Planned and 3 Measured."""
    return enumerated(_times_of(count, names.short(each)) for each, count in counts.items())


def _times_of(count: str, name: str) -> str:
    if count == "1":
        return article(name)
    return f"{number(int(count))} {name}" if count.isdecimal() else f'as many {name} as "{count}" says'


def _messages(most: int | None) -> str:
    if most is None:
        return "as many messages as it likes"
    return "one message" if most == 1 else f"up to {number(most)} messages"


_RUN_BY = {True: "through the API, by no worker", False: "by a worker of its agent"}


def _waits(step: StepSpec) -> str:
    return spoken(step.start_within) if step.start_within else "while its agent is at work"


class _Compared:
    """A step that both templates have."""

    def __init__(self, old: StepSpec, new: StepSpec, names: Names) -> None:
        self._old = old
        self._new = new
        self._names = names

    def changes(self) -> Iterator[Change]:
        old, new, step = self._old, self._new, f"Step {self._new.name}"
        if old.agent != new.agent:
            yield self._change("agent", f"{step} is agent {new.agent}'s instead of agent {old.agent}'s.")
        yield from self._triggers()
        yield from self._answers()
        if old.effect != new.effect:
            yield self._change(
                "effect", f"{step} {_EFFECT[new.effect]}; before, it {_EFFECT[old.effect].replace('is', 'was', 1)}."
            )
        if old.timeout != new.timeout:
            yield self._change("timeout", f"{step} may take {spoken(new.timeout)} instead of {spoken(old.timeout)}.")
        if old.external != new.external:
            now, before = (_RUN_BY[each.external] for each in (new, old))
            yield self._change("external", f"{step} is answered {now}; before, {before}.")
        if old.start_within != new.start_within:
            now, before = _waits(new), _waits(old)
            yield self._change("start_within", f"{step} may wait {now} until it is begun; before, {before}.")
        yield from self._retries("retry", step, old.retry, new.retry)
        if old.on_failure != new.on_failure:
            now, before = _ON_FAILURE[new.on_failure][0], _ON_FAILURE[old.on_failure][1]
            yield self._change("on_failure", f"When step {new.name} has no attempt left, {now}; before, {before}.")
        yield from self._undo(old.undo, new.undo)

    def _change(self, field: str, text: str) -> Change:
        return Change(f"steps.{self._new.name}.{field}", text)

    def _triggers(self) -> Iterator[Change]:
        old, new, step = self._old, self._new, f"Step {self._new.name}"
        if bool(old.joins) != bool(new.joins):
            now, before = (
                f"waits for {_joined(_counts(each), self._names)} together"
                if each.joins
                else f"runs after each {self._names.any_of(each.after)}"
                for each in (new, old)
            )
            yield self._change("after_all" if new.joins else "after", f"{step} {now}; before, it {before}.")
            return
        for each in sorted(new.after - old.after):
            yield self._change("after", f"{step} runs after each {self._names.short(each)} too.")
        for each in sorted(old.after - new.after):
            yield self._change("after", f"{step} no longer runs after {self._names.short(each)}.")
        if _counts(old) != _counts(new):
            now, before = (_joined(_counts(each), self._names) for each in (new, old))
            yield self._change("after_all", f"{step} waits for {now} together, instead of for {before}.")

    def _answers(self) -> Iterator[Change]:
        old, new, step = self._old, self._new, f"Step {self._new.name}"
        for each in sorted(new.emits - old.emits):
            yield self._change("emits", f"{step} may answer {self._names.short(each)}.")
        for each in sorted(old.emits - new.emits):
            yield self._change("emits", f"{step} may no longer answer {self._names.short(each)}.")
        if old.max_outputs != new.max_outputs:
            now, before = (_messages(each.max_outputs) for each in (new, old))
            yield self._change("max_outputs", f"{step} may answer with {now} instead of {before}.")

    def _retries(self, field: str, subject: str, old: RetrySpec, new: RetrySpec) -> Iterator[Change]:
        if old.max_attempts != new.max_attempts:
            now, before = times(new.max_attempts), times(old.max_attempts)
            yield self._change(f"{field}.max_attempts", f"{subject} is tried {now} at most instead of {before}.")
        if old.initial_backoff != new.initial_backoff:
            now, before = spoken(new.initial_backoff), spoken(old.initial_backoff)
            text = f"{subject} waits {now} instead of {before} before the second attempt."
            yield self._change(f"{field}.initial_backoff", text)
        if old.multiplier != new.multiplier:
            text = (
                f"{subject} waits {new.multiplier:g} times as long from attempt to attempt, instead of "
                f"{old.multiplier:g} times."
            )
            yield self._change(f"{field}.multiplier", text)
        if old.max_backoff != new.max_backoff:
            now, before = spoken(new.max_backoff), spoken(old.max_backoff)
            text = f"{subject} waits {now} at most instead of {before} between attempts."
            yield self._change(f"{field}.max_backoff", text)

    def _undo(self, old: UndoSpec | None, new: UndoSpec | None) -> Iterator[Change]:
        name = self._new.name
        if old is None or new is None:
            if new is not None:
                text = f"Agent {self._new.agent} undoes the effect of step {name}, within {spoken(new.timeout)}."
                yield self._change("undo", text)
            elif old is not None:
                yield self._change("undo", f"Nobody undoes the effect of step {name} any longer.")
            return
        if old.timeout != new.timeout:
            text = f"The undo of step {name} may take {spoken(new.timeout)} instead of {spoken(old.timeout)}."
            yield self._change("undo.timeout", text)
        yield from self._retries("undo.retry", f"The undo of step {name}", old.retry, new.retry)
        for each in sorted(new.emits - old.emits):
            yield self._change("undo.emits", f"The undo of step {name} may be reported by {self._names.short(each)}.")
        for each in sorted(old.emits - new.emits):
            text = f"The undo of step {name} may no longer be reported by {self._names.short(each)}."
            yield self._change("undo.emits", text)
