"""Trials with the complete fold: correct for every history, but slower than `regular`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handrail.analysis.replay.stored import Messages, decode
from handrail.analysis.replay.trial import Facts, Trial
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import Versions, begin, evolve, migration_of, rules
from handrail.mesh.fold.outcomes import why_not_first
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind


@dataclass(frozen=True, slots=True)
class Observed:
    """The trials of one flow with its own version and with the changed template, and the flow as recorded."""

    then: Trial
    now: Trial
    flow: Flow


def readable(messages: Messages) -> list[Recorded]:
    """The readable messages; the others are void for all readers."""
    history = []
    for stored in messages:
        try:
            history.append(decode(stored))
        except HandrailError:
            continue
    return history


def pinned(history: Iterable[Recorded], versions: Versions) -> Template | None:
    """The version that a flow began with; None if it never began, or if that version is not stored."""
    for recorded in history:
        if recorded.kind is Kind.EVENT and not recorded.event.step:
            template = versions.get(recorded.event.template_version)
            if template is not None and why_not_first(template, recorded) is None:
                return template
    return None


def observe(messages: Messages, versions: Versions, changed: Template) -> Observed | None:
    """Folds a flow, and tries both templates on its facts as they come. Returns None if the flow did not begin, or
    names versions that are not stored.

    A halt by a person, a failure or a refusal counts as recorded: nothing is evaluated after it. A halt by a rule does
    not: the changed template may lack the rule.
    """
    history = readable(messages)
    template = pinned(history, versions)
    moved = (migrated for recorded in history if (migrated := migration_of(recorded)) is not None)
    if template is None or any(migrated.to_version not in versions for migrated in moved):
        return None
    flow = begin(template)
    then, now = Trial(template), Trial(changed)
    stopped = False
    for recorded in history:
        before, flow = flow, evolve(flow, recorded, versions)
        if recorded.sequence in flow.void:
            continue
        if recorded.kind is Kind.DECISION:
            stopped = _stopped(before, flow, stopped)
            _move(before, flow, then)
        elif not stopped:
            _try(before, flow, recorded, (then, now))
    return Observed(then, now, flow) if flow.first is not None else None


def _try(before: Flow, flow: Flow, recorded: Recorded, trials: tuple[Trial, ...]) -> None:
    is_fact = flow.facts.get(recorded.event_id) is recorded
    proposal = flow.proposals.get(recorded.event_id)
    is_proposal = proposal is not None and proposal.recorded is recorded
    if is_proposal or (is_fact and recorded.kind is Kind.EVENT):
        # The first event is never gated, although a template may define a gate for its type.
        facts = Facts.of(before if before.first is not None else flow)
        for trial in trials:
            trial.propose(recorded, facts)
    if is_fact:
        facts = Facts.of(flow)
        for trial in trials:
            trial.add(recorded, facts)


def _move(before: Flow, flow: Flow, then: Trial) -> None:
    """Follows a migration: the gates of the new version are evaluated again on undecided proposals."""
    if flow.template is not before.template:
        then.move(flow.template)
        for event_id, proposal in flow.proposals.items():
            if before.proposals.get(event_id) is not proposal:
                then.propose(proposal.recorded, Facts.of(flow))


def _stopped(before: Flow, flow: Flow, stopped: bool) -> bool:
    """Whether nothing is evaluated from here on, for a reason other than a rule."""
    if flow.goes_on:
        return False
    if flow.halt is before.halt:
        return stopped
    trip = rules.outstanding(before)
    by_rule = flow.halt is not None and not flow.halt.by and trip is not None and trip.recorded
    return not by_rule
