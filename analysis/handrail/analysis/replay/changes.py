"""Changes: the verdicts that differ between two trials of one flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handrail.analysis.replay.trial import Asked, Trial, Tripped
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import RuleAction
from handrail.v1.template_service_pb2 import PolicyVerdict

_TRIPS = {
    RuleAction.RULE_ACTION_ESCALATE: PolicyVerdict.POLICY_VERDICT_ESCALATES,
    RuleAction.RULE_ACTION_COMPENSATE: PolicyVerdict.POLICY_VERDICT_COMPENSATES,
    RuleAction.RULE_ACTION_FAIL: PolicyVerdict.POLICY_VERDICT_FAILS,
    RuleAction.RULE_ACTION_COMPLETE: PolicyVerdict.POLICY_VERDICT_COMPLETES,
}


class GateChange(NamedTuple):
    """A message that a gate asks about in only one of the two templates."""

    gate: str
    recorded: Recorded
    then: Asked | None
    now: Asked | None


class RuleChange(NamedTuple):
    """A rule that trips in only one of the two templates, or in both at another event or with another consequence."""

    rule: str
    recorded: Recorded
    then: Tripped | None
    now: Tripped | None


Change = GateChange | RuleChange


def changes(then: Trial, now: Trial) -> Iterator[Change]:
    """All changes. Gates and rules are identified by name: a renamed one counts as removed and added."""
    for key in [*then.asked, *(key for key in now.asked if key not in then.asked)]:
        before, after = then.asked.get(key), now.asked.get(key)
        if before is None or after is None:
            either = before or after
            assert either is not None
            yield GateChange(key[0], either.recorded, before, after)
    tripped_then, tripped_now = _by_name(then), _by_name(now)
    for rule in [*tripped_then, *(rule for rule in tripped_now if rule not in tripped_then)]:
        old, new = tripped_then.get(rule), tripped_now.get(rule)
        if old is None or new is None or _way(old) != _way(new):
            tripped = new or old
            assert tripped is not None
            yield RuleChange(rule, tripped.recorded, old, new)


def gate_verdict(trial: Trial, gate: str, recorded: Recorded, asked: Asked | None) -> PolicyVerdict.ValueType:
    """The verdict on a message by a gate of this trial's template."""
    if asked is not None:
        return PolicyVerdict.POLICY_VERDICT_ASKS
    if all(each.name != gate for each in trial.template.gates_on(recorded.type)):
        return PolicyVerdict.POLICY_VERDICT_ABSENT
    end = trial.end
    if end is not None and end.recorded.sequence < recorded.sequence:
        return PolicyVerdict.POLICY_VERDICT_NOT_REACHED
    return PolicyVerdict.POLICY_VERDICT_PASSES


def rule_verdict(trial: Trial, rule: str, recorded: Recorded, tripped: Tripped | None) -> PolicyVerdict.ValueType:
    """The verdict by a rule of this trial's template at a fact where the other trial's rule tripped."""
    if tripped is not None:
        return _TRIPS[tripped.rule.then]
    if rule not in trial.template.rules:
        return PolicyVerdict.POLICY_VERDICT_ABSENT
    end = trial.end
    if end is not None and end.recorded.sequence <= recorded.sequence:
        return PolicyVerdict.POLICY_VERDICT_NOT_REACHED
    return PolicyVerdict.POLICY_VERDICT_RESTS


def _by_name(trial: Trial) -> dict[str, Tripped]:
    found: dict[str, Tripped] = {}
    for tripped in trial.tripped.values():
        found.setdefault(tripped.rule.name, tripped)
    return found


def _way(tripped: Tripped) -> tuple[str, RuleAction.ValueType]:
    return tripped.recorded.event_id, tripped.rule.then
