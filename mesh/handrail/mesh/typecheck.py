"""The flow type-check: finds, before a template is stored, what would strand a flow, bypass a gate or surprise people.

It looks at the template and the contracts of the messages it names, and at nothing else; so it runs in CI as well as in
the coordinator. What it says of the flow as a whole is about what may happen (`handrail.mesh.graph`); a step that fans
out into several messages of one type can't be told from one that doesn't.
"""

from __future__ import annotations

from collections.abc import Iterator

from handrail.mesh import check_flow, check_parts
from handrail.mesh.contracts import Contracts
from handrail.mesh.findings import CODES, Code
from handrail.mesh.graph import FlowGraph
from handrail.v1.template_pb2 import Finding, FlowTemplate

__all__ = ["CODES", "Code", "check"]

_TOO_LARGE = ("[repeated.max_items]", "[string.max_len]")


def check(proto: FlowTemplate, contracts: Contracts) -> list[Finding]:
    """What is wrong with a template, or may be: errors first, then by code and place. Empty where all is well."""
    broken = list(check_parts.check_contract(proto, contracts))
    if any(found.text.endswith(_TOO_LARGE) for found in broken):
        return broken  # the rest of the check is bounded by these very limits
    findings = [*broken, *_all(proto, contracts)]
    return sorted(findings, key=lambda found: (-found.severity, found.code, found.path))


def _all(proto: FlowTemplate, contracts: Contracts) -> Iterator[Finding]:
    graph = FlowGraph(proto)
    yield from check_parts.check_types(proto, contracts)
    yield from check_parts.check_names(proto)
    yield from check_parts.check_effects(proto)
    yield from check_parts.check_gates(proto, contracts)
    yield from check_parts.check_rules(proto, contracts)
    yield from check_parts.check_counts(proto, contracts)
    yield from check_parts.check_times(proto)
    yield from check_flow.check_beginning(proto, graph)
    yield from check_flow.check_steps(proto, graph)
    yield from check_flow.check_end(proto, graph)
    yield from check_flow.check_answers(proto, graph)
    yield from check_flow.check_gates(proto, graph)
    yield from check_flow.check_irreversible(proto, graph)
    yield from check_flow.check_cycles(proto, graph, contracts)
    yield from check_flow.check_joins(proto, graph, contracts)
    yield from check_flow.check_rule_events(proto, graph)
