"""Infers steps from their runs: agent, triggers, answers, effect, time, retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

from handrail.analysis.infer.counts import count_of
from handrail.analysis.infer.notes import Notes, beside, nearly_all, roomy, seconds, span, tally, times
from handrail.analysis.infer.traffic import SeenRun, Traffic
from handrail.mesh.contracts import Contracts
from handrail.mesh.template.specs import STEP_COMPLETED
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import Escalated, EscalationCause, FlowHalted, HaltMode

LEAST = timedelta(seconds=10)
"""The minimum timeout of a step: work that takes milliseconds on a quiet mesh takes longer on a busy one."""

_ESCALATED = Escalated.DESCRIPTOR.full_name
_HALTED = FlowHalted.DESCRIPTOR.full_name

_ON_FAILURE = {
    HaltMode.HALT_MODE_COMPENSATE: pb.FAILURE_ACTION_COMPENSATE,
    HaltMode.HALT_MODE_FAIL: pb.FAILURE_ACTION_FAIL,
}


def infer_step(name: str, runs: Sequence[SeenRun], contracts: Contracts, notes: Notes, path: str) -> pb.Step:
    """Infers one step, with notes on the evidence of each part."""
    step = pb.Step(name=name, agent=_most([run.agent for run in runs if run.agent]))
    notes.add(path, f"{times(len(runs), 'run')} in {times(len(_flows_of(runs)), 'flow')}")
    others = sorted({run.agent for run in runs if run.agent} - {step.agent})
    if others:
        notes.add(f"{path}.agent", f"{', '.join(others)} answered too")
    _triggers(step, runs, contracts, notes, path)
    _answers(step, runs, notes, path)
    _time(step, runs, notes, path)
    _retries(step, runs, notes, path)
    _failing(step, runs, notes, path)
    _effect(step, runs, notes, path)
    return step


def _triggers(step: pb.Step, runs: Sequence[SeenRun], contracts: Contracts, notes: Notes, path: str) -> None:
    joins = [run for run in runs if run.inputs]
    single = [run.trigger.type for run in runs if run.trigger is not None and not run.inputs]
    unknown = len(runs) - len(joins) - len(single)
    if len(joins) > len(single):
        _join(step, joins, contracts, notes, path)
        if single:
            notes.add(
                f"{path}.after_all", f"other runs began after one message: {tally(single)}; a step does not do both"
            )
    else:
        step.after.extend(dict(Counter(single).most_common()))
        notes.add(f"{path}.after", beside(single) or "nothing on record: correct this")
        if joins:
            notes.add(f"{path}.after", f"{times(len(joins), 'run')} joined several messages; a step does not do both")
    if unknown:
        notes.add(path, f"no recorded message explains the roots of {times(unknown, 'run')}")


def _join(step: pb.Step, runs: Sequence[SeenRun], contracts: Contracts, notes: Notes, path: str) -> None:
    for message_type in dict.fromkeys(fact.type for run in runs for fact in run.inputs):
        with_it = [run for run in runs if any(fact.type == message_type for fact in run.inputs)]
        count, told_from = count_of(message_type, with_it, contracts)
        place = f"{path}.after_all[{len(step.after_all)}]"
        step.after_all.add(type=message_type, count=count)
        notes.add(place, told_from)
        if len(with_it) < len(runs):
            notes.add(
                place, f"{times(len(runs) - len(with_it), 'join')} ran without it: a join can't, so check the agent"
            )


def _answers(step: pb.Step, runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    answers = [each.type for run in runs for each in run.outcomes]
    step.emits.extend(each for each in dict(Counter(answers).most_common()) if each != STEP_COMPLETED)
    place = f"{path}.emits" if step.emits else path
    notes.add(place, beside(answers) or "it never answered: its outcomes are not on record")
    totals = [run.outcomes[0].event.output_total or 1 for run in runs if run.outcomes]
    if totals and max(totals) > 1:
        notes.add(place, f"{span(totals)} at once")


def _time(step: pb.Step, runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    took = [latency for run in runs for latency in run.latencies]
    timeout = roomy(nearly_all(took), least=LEAST) if took else LEAST * 3
    step.timeout.FromTimedelta(timeout)
    notes.add(
        f"{path}.timeout",
        _within(took, "answer"),
    )


def _retries(step: pb.Step, runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    attempts = max(run.attempts for run in runs)
    if attempts > 1:
        again = sum(run.attempts > 1 for run in runs)
        step.retry.max_attempts = attempts
        notes.add(f"{path}.retry", f"more than one attempt: {times(again, 'run')}; at most {attempts}")


def _failing(step: pb.Step, runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    """Infers `on_failure` from the decisions that name the step after its last attempt."""
    seen = [action for flow in _flows_of(runs) for action in _consequences(step.name, flow)]
    if seen:
        step.on_failure = Counter(seen).most_common(1)[0][0]
        notes.add(f"{path}.on_failure", f"failed for good: {len(seen):,}")


def _consequences(step: str, flow: Traffic) -> Iterator[pb.FailureAction.ValueType]:
    for each in flow.decisions(_HALTED):
        halted = FlowHalted.FromString(each.event.data.value)
        # A halt names its cause only in its reason, which is `StepRun.failure`.
        if not halted.by and halted.mode in _ON_FAILURE and halted.reason.startswith(f"step {step} failed for good "):
            yield _ON_FAILURE[halted.mode]
    for each in flow.decisions(_ESCALATED):
        escalated = Escalated.FromString(each.event.data.value)
        if (escalated.cause, escalated.step) == (EscalationCause.ESCALATION_CAUSE_STEP_FAILED, step):
            yield pb.FAILURE_ACTION_ESCALATE


def _flows_of(runs: Sequence[SeenRun]) -> Collection[Traffic]:
    return {id(run.flow): run.flow for run in runs}.values()


def _effect(step: pb.Step, runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    """Infers the effect: a step with undone outcomes has an undoable effect. The other two kinds look the same."""
    outcomes = {each.event_id for run in runs for each in run.outcomes}
    undos = [each for flow in _flows_of(runs) for each in flow.recorded if _is_undo_of(each, outcomes)]
    if not undos:
        step.effect = pb.EFFECT_NONE
        notes.add(f"{path}.effect", "no undo on record: say NONE, UNDOABLE or IRREVERSIBLE yourself")
        return
    commands = [each for each in undos if each.kind is Kind.UNDO]
    reports = [each for each in undos if each.kind is Kind.UNDONE]
    step.effect = pb.EFFECT_UNDOABLE
    notes.add(f"{path}.effect", f"undone: {len({each.event.root for each in undos}):,}")
    took = list(_took(commands, reports))
    step.undo.timeout.FromTimedelta(roomy(nearly_all(took), least=LEAST) if took else LEAST * 3)
    notes.add(
        f"{path}.undo.timeout",
        _within(took, "undo"),
    )
    attempts = max([1, *(each.event.attempt for each in commands)])
    if attempts > 1:
        step.undo.retry.max_attempts = attempts
        notes.add(f"{path}.undo.retry", f"at most {attempts} attempts")
    types = [each.type for each in reports]
    step.undo.emits.extend(each for each in dict(Counter(types).most_common()) if each != STEP_COMPLETED)
    if step.undo.emits:
        notes.add(f"{path}.undo.emits", beside(types))


def _is_undo_of(recorded: Recorded, outcomes: set[str]) -> bool:
    return recorded.kind in (Kind.UNDO, Kind.UNDONE) and recorded.event.root in outcomes


def _took(commands: Sequence[Recorded], reports: Sequence[Recorded]) -> Iterator[timedelta]:
    began = {(each.event.root, each.event.attempt): each.time for each in commands}
    for report in reports:
        since = began.get((report.event.root, report.event.attempt))
        if since is not None:
            yield report.time - since


def _within(took: Sequence[timedelta], what: str) -> str:
    return f"99 in 100 within {seconds(nearly_all(took))}, of {times(len(took), what)}" if took else "a guess"


def _most(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0] if names else "unknown"
