"""Plans what to do about a delivery. Pure: the flow, if needed, is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from handrail.agents.attempt import Attempt
from handrail.agents.bindings import Bindings, Bound
from handrail.mesh.flow import Flow, Verdict, Void
from handrail.mesh.flow.work import SAFE_AGE
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt and what to do about it."""

    attempt: Attempt
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Plan:
    """What a delivery asks for: tasks, or nothing; `void` says why the message itself does not count."""

    tasks: tuple[Task, ...] = ()
    void: Void | None = None


_NOTHING = Plan()
_SAFE_SECONDS = SAFE_AGE.total_seconds()
_FRESH, _AHEAD = timedelta(seconds=5), timedelta(seconds=1)
"""How old an undo may be to be executed without a read of the flow, and how far ahead of this worker's clock."""


def needs_fold(
    recorded: Recorded, bound: Bound, bindings: Bindings, *, delivered: int, now: datetime, hinted: bool
) -> bool:
    """Tells whether the flow must be read before anything starts.

    That holds for redeliveries, messages that waited longer than a step's timeout, effects in a flow that may have been
    purged, flows that a hint reports as halted or moved, steps that can't be undone or wait for several facts, types
    that any version gates, effects that any version has a rule on (it may trip at this very fact), and publishers that
    look wrong.
    """
    message_type = recorded.type
    route = bound.route(message_type)
    return (
        delivered > 1
        or hinted
        or route.fold_first
        or now - recorded.time > route.patience
        or (route.has_effect and may_be_purged(recorded, now=now))
        or (recorded.kind is Kind.EVENT and bindings.gated_somewhere(recorded.address.flow_type, message_type))
        or (route.has_effect and bindings.ruled_somewhere(recorded.address.flow_type, message_type))
        or (recorded.kind is not Kind.DECISION and not bound.speaks_rightly(recorded))
    )


def may_be_purged(recorded: Recorded, *, now: datetime) -> bool:
    """Tells whether the flow of an event may have been purged, by now or when the event was stored: a message may take
    long on its way, and an agent may answer late.
    """
    event = recorded.event
    if now - recorded.time > SAFE_AGE or event.late:
        return True
    took = recorded.time.timestamp() - event.time.seconds
    return recorded.kind is Kind.EVENT and took > _SAFE_SECONDS and event.HasField("time")


def direct(recorded: Recorded, bound: Bound) -> Plan:
    """Plans the first attempts at the steps that a fact triggers, without reading the flow."""
    return Plan(
        tuple(
            Task(
                Attempt(
                    template=bound.template,
                    flow_id=recorded.address.flow_id,
                    step=step,
                    root=recorded.event_id,
                    run=0,
                    attempt=1,
                    cause=recorded.event_id,
                    inputs=(recorded,),
                    deadline=recorded.time + step.timeout,
                ),
                Verdict.RUN,
            )
            for step in bound.route(recorded.type).steps
        )
    )


def undone_at_once(recorded: Recorded, bound: Bound, *, agent: str, delivered: int, now: datetime) -> Plan | None:
    """Plans the first attempt at an undo from its command alone; None if the flow must be read.

    An `exact` command was valid when it was recorded. It may have been answered since on a redelivery, and have timed
    out once it is as old as its timeout; a later attempt has a command of its own. Data that is left out was too large.
    """
    event = recorded.event
    step = bound.template.steps.get(event.step)
    if step is None or step.undo is None or step.agent != agent:
        return None
    age = now - recorded.time
    first = event.exact and event.attempt == 1 and delivered == 1
    if not first or not event.data.value or not -_AHEAD <= age < min(_FRESH, step.undo.timeout):
        return None
    attempt = Attempt(
        template=bound.template,
        flow_id=recorded.address.flow_id,
        step=step,
        root=event.root,
        run=event.run,
        attempt=event.attempt,
        cause=event.root,
        inputs=(recorded,),
        may_have_started=True,
        undo_of=event.root,
        deadline=recorded.time + step.undo.timeout,
        in_halted_flow=True,
        right_after=0 if bound.template.parallel_undo else recorded.sequence,
    )
    return Plan((Task(attempt, Verdict.RUN),))


def triggers_nothing(flow: Flow, recorded: Recorded, *, agent: str) -> bool:
    """Tells whether the flow, as of any time after this fact, shows that the fact triggers no step of the agent.

    A run begins at the very message that triggers it, so nothing that is stored later changes the answer.
    """
    fact = flow.facts.get(recorded.event_id)
    if fact is None or fact.sequence != recorded.sequence:
        return False
    return not any(run.trigger.sequence == fact.sequence and run.step.agent == agent for run in flow.runs.values())


def triggered(flow: Flow, recorded: Recorded, *, agent: str, delivered: int) -> Plan:
    """Plans what a fact, or a decision that a step waits for, triggers in the current flow."""
    void = flow.void.get(recorded.sequence)
    if void is not None:
        return Plan(void=void)
    tasks = []
    for run in flow.runs_triggered_by(recorded.event_id):
        if run.step.agent != agent:
            continue
        attempt = Attempt(
            template=flow.template,
            flow_id=flow.flow_id,
            step=run.step,
            root=run.root,
            run=0,
            attempt=1,
            cause=recorded.event_id,
            inputs=_inputs(flow, run.inputs, recorded),
            may_have_started=delivered > 1,
            starts=run.starts,
            on_record=delivered > 1 or run.starts.on_record,
            deadline=run.deadline,
            in_halted_flow=flow.is_halted,
        )
        tasks.append(Task(attempt, _verdict(flow, attempt)))
    return Plan(tuple(tasks))


def retried(flow: Flow, recorded: Recorded, *, agent: str, delivered: int) -> Plan:
    """Plans what a retry command asks for, if it is still needed."""
    void = flow.void.get(recorded.sequence)
    if void is not None:
        return Plan(void=void)
    event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if run is None or run.step.agent != agent:
        return _NOTHING
    attempt = Attempt(
        template=flow.template,
        flow_id=flow.flow_id,
        step=run.step,
        root=run.root,
        run=event.run,
        attempt=event.attempt,
        cause=event.causation_id or run.trigger.event_id,
        inputs=_inputs(flow, run.inputs, run.trigger),
        may_have_started=delivered > 1,
        starts=run.starts,
        on_record=delivered > 1 or run.starts.on_record,
        deadline=run.deadline,
        in_halted_flow=flow.is_halted,
    )
    return Plan((Task(attempt, _verdict(flow, attempt)),))


def undone(flow: Flow, recorded: Recorded, *, agent: str, delivered: int) -> Plan:
    """Plans what an undo command asks for, if it is still needed."""
    void = flow.void.get(recorded.sequence)
    if void is not None:
        return Plan(void=void)
    event = recorded.event
    effect = flow.effects.get(event.root)
    if effect is None or effect.step.agent != agent:
        return _NOTHING
    attempt = Attempt(
        template=flow.template,
        flow_id=flow.flow_id,
        step=effect.step,
        root=event.root,
        run=event.run,
        attempt=event.attempt,
        cause=event.root,
        inputs=(effect.recorded,),
        may_have_started=True,
        undo_of=event.root,
        starts=effect.starts,
        on_record=delivered > 1 or effect.starts.on_record,
        deadline=effect.deadline or recorded.time,
        in_halted_flow=flow.is_halted,
    )
    wanted = flow.wants_undo(event.root, event.attempt)
    return Plan((Task(attempt, Verdict.RUN if wanted else Verdict.DROP),))


def _verdict(flow: Flow, attempt: Attempt) -> Verdict:
    return flow.verdict(
        step=attempt.step.name,
        root=attempt.root,
        run=attempt.run,
        attempt=attempt.attempt,
        may_have_started=attempt.may_have_started,
    )


def _inputs(flow: Flow, event_ids: tuple[str, ...], trigger: Recorded) -> tuple[Recorded, ...]:
    """Returns the facts that triggered a run; a decision that triggers is not a fact and is taken as delivered."""
    return tuple(flow.facts.get(event_id, trigger) for event_id in event_ids)
