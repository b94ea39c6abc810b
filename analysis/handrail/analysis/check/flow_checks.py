"""The checks of the template as a whole: which events can follow from which."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.analysis.check.bounds import Bounds
from handrail.analysis.check.codes import finding
from handrail.analysis.check.graph import FlowGraph, goes_on
from handrail.mesh.conditions.policy import Count
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import MESSAGE_LIMIT
from handrail.mesh.printable import cut
from handrail.mesh.template.specs import APPROVAL_REFUSED, STEP_COMPLETED
from handrail.mesh.template.terms import emits_of, fact_types
from handrail.v1 import template_pb2 as pb


def check_beginning(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """First events that steps also emit, or that have a gate without effect."""
    for index, event in enumerate(proto.starts_with):
        if any(event in step.emits for step in proto.steps):
            yield finding("HR014", f"starts_with[{index}]", f"{cut(event)} begins a flow, and a step emits it")
    for index, gate in enumerate(proto.gates):
        if gate.on in graph.starts:
            yield finding("HR022", f"gates[{index}].on", f"{cut(gate.on)} begins a flow: it is a fact without any gate")


def check_steps(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Steps that no event can trigger."""
    undone = {event for step in proto.steps for event in step.undo.emits}
    for index, step in enumerate(proto.steps):
        waits = [(f"steps[{index}].after[{position}]", event) for position, event in enumerate(step.after)]
        waits += [
            (f"steps[{index}].after_all[{position}].type", join.type) for position, join in enumerate(step.after_all)
        ]
        missing = [(path, event) for path, event in waits if event not in graph.emitted]
        for path, event in missing:
            yield finding("HR009", path, f"step {step.name} waits for {cut(event)}, which {_why_not(event, undone)}")
        if not missing and index not in graph.reachable:
            yield finding("HR007", f"steps[{index}]", f"nothing that a flow can begin with leads to step {step.name}")


def check_end(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Completing events that can't be reached."""
    for index, event in enumerate(proto.completes_with):
        if event not in graph.possible:
            why = "no step that can be reached emits it" if event in graph.emitted else "no step emits it"
            yield finding("HR008", f"completes_with[{index}]", f"{cut(event)} can't come about: {why}")


def check_answers(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Events that no step continues from: they strand the flow, or the flow completes without them."""
    dead_ends = set(graph.dead_ends())
    heeded = graph.completes | graph.waited_for | graph.watched | {STEP_COMPLETED}
    for index, event in dead_ends:
        yield _dead_end(proto, index, event)
    for index in sorted(graph.reachable):
        for position, event in enumerate(proto.steps[index].emits):
            if event not in heeded and (index, event) not in dead_ends:
                path = f"steps[{index}].emits[{position}]"
                yield finding("HR010", path, f"no step waits for {cut(event)}, and it does not complete the flow")


def check_gates(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Gates on types that no step proposes."""
    for index, gate in enumerate(proto.gates):
        if gate.on not in graph.starts and not any(gate.on in step.emits for step in proto.steps):
            yield finding("HR009", f"gates[{index}].on", f"gate {gate.name} guards {cut(gate.on)}, which no step emits")


def check_irreversible(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Effects that can't be undone when a later step fails."""
    guarded = {gate.on for gate in proto.gates} | {APPROVAL_REFUSED}
    for index, step in enumerate(proto.steps):
        if step.effect != pb.EFFECT_IRREVERSIBLE or graph.waited_for.isdisjoint(graph.outcomes[index]):
            continue
        behind_gate = guarded.issuperset(step.after) if step.after else not guarded.isdisjoint(graph.waits[index])
        if not behind_gate:
            yield finding(
                "HR017",
                f"steps[{index}].effect",
                f"steps follow on {step.name}; when one of them fails, its effect stays, and nobody was asked before",
            )


def check_cycles(proto: pb.FlowTemplate, graph: FlowGraph, bounds: Bounds) -> Iterator[pb.Finding]:
    """Cycles of steps without a rule that counts the rounds."""
    for cycle in graph.cycles:
        if graph.goes_round(cycle, bounds.limits):
            names = ", ".join(proto.steps[index].name for index in sorted(cycle))
            yield finding(
                "HR013", f"steps[{min(cycle)}]", f"nothing limits how often {cut(names)} can follow each other"
            )


def check_size(proto: pb.FlowTemplate, graph: FlowGraph, bounds: Bounds) -> Iterator[pb.Finding]:
    """Templates of flows that may have, or need, more messages than a flow can hold."""
    limit = proto.max_messages or MESSAGE_LIMIT
    for index, position in bounds.unbounded_fan_outs:
        join = proto.steps[index].after_all[position]
        path = f"steps[{index}].after_all[{position}].count"
        yield finding("HR033", path, f"nothing says how large {cut(join.count)} can be: a flow holds {limit}")
    fewest, most = bounds.fewest_messages, bounds.most_messages
    if fewest > limit:
        yield finding("HR032", "", f"no flow completes with less than {fewest} messages; at {limit} it is held")
    elif most is not None and most > limit:
        yield finding(
            "HR033",
            "",
            f"a flow can come to {most:,} messages without a single retry; at {limit} it is held",
            "bound what its joins count more tightly, or split the flow",
        )


def check_joins(proto: pb.FlowTemplate, graph: FlowGraph, bounds: Bounds, contracts: Contracts) -> Iterator[pb.Finding]:
    """Joins that name an input twice, lack a count, wait for too many messages, or have a count that may be unknown."""
    facts = frozenset(filter(contracts.knows, fact_types(proto)))
    for index, step in enumerate(proto.steps):
        # The join is evaluated at each of its inputs: one input may hold the count of another.
        inputs = frozenset(join.type for join in step.after_all)
        seen: set[str] = set()
        for position, join in enumerate(step.after_all):
            path = f"steps[{index}].after_all[{position}]"
            if join.type in seen:
                yield finding("HR018", f"{path}.type", f"step {step.name} waits for {cut(join.type)} twice")
            seen.add(join.type)
            if not join.count.strip() and graph.can_repeat(join.type):
                yield finding(
                    "HR019",
                    path,
                    f"more than one {cut(join.type)} can come, and step {step.name} does not say how many",
                )
            try:
                count = Count.parse(join.count, latest_types=facts, contracts=contracts)
            except PolicyError as error:
                yield finding("HR020", f"{path}.count", error.text)
                continue
            most = bounds.certain(join.type)
            if most is not None and count.fixed is not None and count.fixed > most and join.type in graph.possible:
                text = f"step {step.name} waits for {count.fixed} {cut(join.type)}, and no more than {most} can come"
                yield finding("HR035", f"{path}.count", text)
            if count.fixed is not None and not 1 <= count.fixed <= (proto.max_messages or MESSAGE_LIMIT):
                yield finding(
                    "HR020",
                    f"{path}.count",
                    f"{cut(join.count)} is not from 1 to {proto.max_messages or MESSAGE_LIMIT}",
                )
            for counted in sorted(count.latest_types - inputs):
                if join.type in graph.possible_without(counted):
                    yield finding(
                        "HR021", f"{path}.count", f"{cut(join.type)} can come without {counted}, which says how many"
                    )


def check_starvation(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Joins with one input on a branch where another never comes. An explicit count says that it does."""
    for index, step in enumerate(proto.steps):
        for position, join in enumerate(step.after_all):
            if join.count.strip() or join.type not in graph.possible:
                continue
            others = {other.type for other in step.after_all} - {join.type}
            without = next((other for other in sorted(others) if graph.can_come_without(other, join.type)), None)
            if without is not None:
                yield finding(
                    "HR031",
                    f"steps[{index}].after_all[{position}]",
                    f"{cut(without)} can come on a way without {cut(join.type)}: step {step.name} then waits forever",
                )


def check_rule_events(proto: pb.FlowTemplate, graph: FlowGraph) -> Iterator[pb.Finding]:
    """Rules that are never evaluated."""
    for index, rule in enumerate(proto.rules):
        for position, event in enumerate(rule.on):
            if event not in graph.emitted:
                path = f"rules[{index}].on[{position}]"
                yield finding("HR009", path, f"rule {rule.name} looks at {cut(event)}, which no step emits")


def _why_not(event: str, undone: set[str]) -> str:
    if event == APPROVAL_REFUSED:
        return "comes only from a gate with on_reject CONTINUE, on an event that a step emits"
    if event in undone:
        return "only an undo emits, and nothing goes on after an undo"
    return "nobody emits"


def _dead_end(proto: pb.FlowTemplate, index: int, event: str) -> pb.Finding:
    if index < 0:
        path = f"starts_with[{list(proto.starts_with).index(event)}]"
        return finding("HR011", path, f"a flow that begins with {cut(event)} can't go on: no step waits for it")
    step = proto.steps[index]
    if event in step.emits:
        path = f"steps[{index}].emits[{list(step.emits).index(event)}]"
        return finding("HR011", path, f"if step {step.name} answers with {cut(event)}, the flow can be stranded there")
    if event == APPROVAL_REFUSED:
        emits = emits_of(step)
        gate = next(number for number, gate in enumerate(proto.gates) if gate.on in emits and goes_on(gate))
        text = f"when what step {step.name} proposes is refused, no step waits for that, and the flow can be stranded"
        return finding("HR012", f"gates[{gate}].on_reject", text)
    text = f"nothing follows on step {step.name}, which emits nothing, and the flow can be stranded there"
    return finding("HR011", f"steps[{index}]", text, "let it emit an event that leads on, or that completes the flow")
