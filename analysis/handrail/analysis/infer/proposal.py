"""Assembles the whole template from all flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handrail.analysis.check.typecheck import check
from handrail.analysis.infer.gates import infer_gates
from handrail.analysis.infer.notes import Notes, beside, nearly_all, roomy, seconds, tally, times
from handrail.analysis.infer.rules import infer_rules
from handrail.analysis.infer.steps import infer_step
from handrail.analysis.infer.traffic import SeenRun, Traffic, seen_runs
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.terms import Terms
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import FlowClosed, FlowStatus
from handrail.v1.error_reason_pb2 import ErrorReason

_CLOSED = FlowClosed.DESCRIPTOR.full_name
_LEAST = timedelta(minutes=1)


@dataclass(frozen=True)
class Inferred:
    """A template, the notes on the evidence of each part, by path, and its findings of the flow type-check."""

    template: pb.FlowTemplate
    notes: Mapping[str, Sequence[str]]
    findings: Sequence[pb.Finding]


def infer(name: str, flows: Sequence[Traffic], contracts: Contracts) -> Inferred:
    """Infers the common template of these flows of one type, as the version after the newest recorded one.

    Messages of types that the contracts do not have are used without decoding. Raises FLOW_NOT_FOUND if no flow has
    begun.
    """
    flows = [flow for flow in flows if any(_is_first(each) for each in flow.recorded)]
    if not flows:
        raise HandrailError(
            ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, f"no {name} is on record to infer a template from", flow_type=name
        )
    notes = Notes()
    runs = seen_runs(flows)
    template = pb.FlowTemplate(name=name, version=1 + _newest_version(flows))
    _introduce(flows, contracts, notes)
    for step, of_step in runs.items():
        template.steps.append(infer_step(step, of_step, contracts, notes, f"steps[{len(template.steps)}]"))
    every_run = [run for of_step in runs.values() for run in of_step]
    _begin(template, flows, notes)
    _end(template, flows, every_run, notes)
    terms = Terms.of(template, contracts).known()
    template.gates.extend(infer_gates(flows, every_run, terms, notes))
    template.rules.extend(infer_rules(flows, terms, notes))
    _bound(template, flows, notes)
    _say_one(template, contracts)
    findings = check(template, contracts)
    _tell_findings(findings, notes)
    return Inferred(template, notes, findings)


def _newest_version(flows: Sequence[Traffic]) -> int:
    """The newest version in the messages: those of a migrated flow have several."""
    return max(each.event.template_version for flow in flows for each in flow.recorded)


def _is_first(recorded: Recorded) -> bool:
    return recorded.kind is Kind.EVENT and not recorded.event.step


def _introduce(flows: Sequence[Traffic], contracts: Contracts, notes: Notes) -> None:
    first = min(flow.recorded[0].time for flow in flows)
    last = max(flow.recorded[-1].time for flow in flows)
    pinned = Counter(flow.recorded[-1].event.template_version for flow in flows)
    versions = ", ".join(f"{number:,} of version {version}" for version, number in sorted(pinned.items()))
    notes.add(
        "",
        f"Inferred from {times(len(flows), 'flow')}, {versions}, recorded from {_minute(first)} to {_minute(last)}.",
    )
    notes.add("", f"They stand at: {tally(_word(flow.status) for flow in flows)}.")
    notes.add(
        "",
        "It does not contain what never happened in them: a branch not taken, a gate that let all pass, a rule that "
        "never tripped, a failure that never came. Treat it as a proposal.",
    )
    unseen = _never_seen(flows, contracts)
    if unseen:
        notes.add("", f"Messages of these contracts that never came: {', '.join(unseen)}.")
    left_out = [each for flow in flows for each in flow.left_out]
    if left_out:
        notes.add("", f"Left out, because they do not count: {tally(f'{e.type} by {e.agent}' for e in left_out)}.")


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _word(status: FlowStatus.ValueType) -> str:
    return FlowStatus.Name(status).removeprefix("FLOW_STATUS_")


def _begin(template: pb.FlowTemplate, flows: Sequence[Traffic], notes: Notes) -> None:
    firsts = [next(each for each in flow.recorded if _is_first(each)) for flow in flows]
    types = [each.type for each in firsts]
    template.starts_with.extend(dict(Counter(types).most_common()))
    notes.add("starts_with", beside(types))
    starters = [each.agent for each in firsts]
    agents = [agent for agent in starters if agent != COORDINATOR]
    template.started_by.extend(dict(Counter(agents).most_common()))
    if agents:
        notes.add("started_by", beside(agents))
    if len(agents) < len(starters):
        notes.add("starts_with", f"{len(starters) - len(agents):,} through the API")


def _end(template: pb.FlowTemplate, flows: Sequence[Traffic], runs: Sequence[SeenRun], notes: Notes) -> None:
    """Finds the completing events: the fewest types among the final facts that cover every flow that completed by
    itself.
    """
    triggers = {each.type for run in runs for each in (*run.inputs, *([run.trigger] if run.trigger else ()))}
    completed = [flow for flow in flows if _completed_by_itself(flow)]
    open_ended = [_ends(flow, triggers) for flow in completed or flows]
    last = Counter(ends[-1] for ends in open_ended)
    chosen: list[str] = []
    left = open_ended
    while left:
        covered = Counter(name for ends in left for name in set(ends))
        best = max(covered, key=lambda name: (covered[name], last[name], name))
        chosen.append(best)
        left = [ends for ends in left if best not in ends]
    template.completes_with.extend(chosen)
    if completed:
        in_each = beside([name for ends in open_ended for name in set(ends) if name in chosen])
        notes.add("completes_with", f"{in_each}; {times(len(completed), 'flow')} completed")
    else:
        notes.add("completes_with", "no flow completed by itself: these are the facts that came last")


def _completed_by_itself(flow: Traffic) -> bool:
    return flow.status == FlowStatus.FLOW_STATUS_COMPLETED and not any(flow.decisions(_CLOSED))


def _ends(flow: Traffic, triggers: set[str]) -> list[str]:
    """The types of the facts that trigger nothing, in order of arrival; the last fact if all trigger something."""
    facts = [fact.type for fact in flow.facts.values()]
    return [name for name in facts if name not in triggers] or facts[-1:]


def _bound(template: pb.FlowTemplate, flows: Sequence[Traffic], notes: Notes) -> None:
    """Sets the deadline of the flow, no shorter than any duration within it."""
    took = [flow.recorded[-1].time - flow.recorded[0].time for flow in flows]
    parts = [step.timeout.ToTimedelta() for step in template.steps]
    parts += [gate.expires_after.ToTimedelta() for gate in template.gates]
    template.deadline.FromTimedelta(roomy(nearly_all(took), least=max([_LEAST, *parts])))
    notes.add("deadline", f"99 in 100 within {seconds(nearly_all(took))}, of {times(len(took), 'flow')}")


def _say_one(template: pb.FlowTemplate, contracts: Contracts) -> None:
    """Sets `count: 1` on joins if the type-check considers more than one message possible."""
    for found in check(template, contracts):
        if found.code == "HR019":
            step, position = (int(part.split("]")[0]) for part in found.path.split("[")[1:])
            template.steps[step].after_all[position].count = "1"


def _tell_findings(findings: Sequence[pb.Finding], notes: Notes) -> None:
    for found in findings:
        place = f" at {found.path}" if found.path else ""
        notes.add("", f"The flow type-check: {found.code}{place}: {found.text}.")


def _never_seen(flows: Sequence[Traffic], contracts: Contracts) -> list[str]:
    """Top-level messages of the same packages that never came: perhaps answers that were never given."""
    seen = {each.type for flow in flows for each in (*flow.recorded, *flow.left_out)}
    packages = {name.rpartition(".")[0] for flow in flows for name in (each.type for each in flow.facts.values())}
    candidates = [name for name in sorted(contracts.message_names) if name.rpartition(".")[0] in packages]
    parts = {
        field.message_type.full_name
        for name in candidates
        for field in contracts.message_class(name).DESCRIPTOR.fields
        if field.message_type is not None
    }
    return [name for name in candidates if name not in seen and name not in parts]
