"""Credit: a deadline that fell due is moved by the time in which no coordinator was there.

One list serves two: the coordinator credits what is on it, the fold holds a credit void for what is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from handrail.mesh.absence import Absence, Clock, moved
from handrail.mesh.envelope import Recorded, from_timestamp, timestamp
from handrail.mesh.flow import Flow, Proposal, ProposalState, RunState, Void
from handrail.mesh.fold import matters
from handrail.v1 import decision_pb2 as pb


class Watched(NamedTuple):
    """A deadline that is watched: what names it, and how it runs."""

    what: pb.Deadline
    clock: Clock


def watched(flow: Flow) -> Iterator[Watched]:
    """Every deadline of a flow as it stands."""
    yield from _of_runs(flow)
    yield from _of_undos(flow)
    for proposal in flow.proposals.values():
        yield from _of_proposal(proposal)
    if matters.waits_for_deadline(flow):
        clock = Clock(flow.counted_from or flow.start_time, flow.deadline)
        yield _watched(clock, pb.Deadline(kind=pb.DeadlineKind.DEADLINE_KIND_FLOW))


def apply_credited(flow: Flow, recorded: Recorded) -> Void | None:
    """A deadline is moved; void where it is over, moved meanwhile, or not due, or where no absence gives that much."""
    credited = pb.TimeCredited.FromString(recorded.event.data.value)
    clock = next((each.clock for each in watched(flow) if each.what == credited.what), None)
    if clock is None or recorded.time < clock.due:
        return Void("what it gives time to is over, or is not due")
    try:
        absences = [Absence(from_timestamp(a.start_time), from_timestamp(a.end_time)) for a in credited.absences]
        until = from_timestamp(credited.until)
    except (ValueError, OverflowError) as error:
        return Void(f"its times can't be read: {error}")
    most = moved(clock, absences, recorded.time)
    if most is None or not clock.due < until <= most:
        return Void("the absences that it names do not give as much time")
    _move(flow, credited.what, Clock(recorded.time, until))
    return None


def _of_runs(flow: Flow) -> Iterator[Watched]:
    for run in flow.awaited_runs():
        if run.state is RunState.OWED:
            what = pb.Deadline(kind=pb.DeadlineKind.DEADLINE_KIND_STEP, subject_id=run.root, step=run.step.name)
            what.run, what.attempt = run.run, run.attempt
            yield _watched(Clock(run.counted_from or run.since, run.deadline, run.step.timeout), what)


def _of_undos(flow: Flow) -> Iterator[Watched]:
    for effect in flow.undo_targets():
        if effect.deadline is None or effect.counted_from is None or effect.step.undo is None:
            continue
        what = pb.Deadline(kind=pb.DeadlineKind.DEADLINE_KIND_UNDO, subject_id=effect.recorded.event_id)
        what.step, what.run, what.attempt = effect.step.name, effect.recorded.event.run, effect.attempt
        yield _watched(Clock(effect.counted_from, effect.deadline, effect.step.undo.timeout), what)


def _of_proposal(proposal: Proposal) -> Iterator[Watched]:
    asked = proposal.requested_at
    if proposal.state is not ProposalState.PENDING or asked is None:
        return
    for ask in proposal.asks:
        due = proposal.expiry(ask)
        if due is not None:
            what = pb.Deadline(kind=pb.DeadlineKind.DEADLINE_KIND_APPROVAL, subject_id=proposal.recorded.event_id)
            what.gate = ask.gate.name
            yield _watched(Clock(ask.counted_from or asked, due), what)


def _watched(clock: Clock, what: pb.Deadline) -> Watched:
    what.due_time.CopyFrom(timestamp(clock.due))
    return Watched(what, clock)


def _move(flow: Flow, what: pb.Deadline, clock: Clock) -> None:
    about = what.subject_id
    match what.kind:
        case pb.DeadlineKind.DEADLINE_KIND_STEP:
            key = (what.step, about)
            flow.runs[key] = replace(flow.runs[key], deadline=clock.due, counted_from=clock.since)
        case pb.DeadlineKind.DEADLINE_KIND_UNDO:
            effect = flow.effects[about]
            flow.effects[about] = replace(effect, deadline=clock.due, counted_from=clock.since)
        case pb.DeadlineKind.DEADLINE_KIND_APPROVAL:
            flow.proposals[about] = _moved_expiry(flow.proposals[about], what.gate, clock)
        case pb.DeadlineKind.DEADLINE_KIND_FLOW:
            flow.credit += clock.due - flow.deadline
            flow.counted_from = clock.since


def _moved_expiry(proposal: Proposal, gate: str, clock: Clock) -> Proposal:
    asks = tuple(
        replace(ask, credit=ask.credit + (clock.due - due), counted_from=clock.since)
        if ask.gate.name == gate and (due := proposal.expiry(ask)) is not None
        else ask
        for ask in proposal.asks
    )
    return replace(proposal, asks=asks)
