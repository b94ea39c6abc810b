"""The flow type-check: finds errors of a template before it is stored.

It reads only the template and the contracts of the messages it names, so it runs in CI as well as in the coordinator.
Its findings on the flow as a whole are about what may happen (`graph`) and how often (`bounds`). A join with a count
shows that a step fans out into several messages of one type.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from handrail.analysis.check import flow_checks, part_checks, search_checks
from handrail.analysis.check.bounds import Bounds
from handrail.analysis.check.codes import CODES, Code
from handrail.analysis.check.graph import FlowGraph
from handrail.mesh.contracts import Contracts
from handrail.v1.template_pb2 import Finding, FlowTemplate

__all__ = ["CODES", "Code", "check"]

MAX_FINDINGS = 100
"""The maximum number of findings of one check: nobody reads more, and the next run reports the rest."""

_TOO_LARGE = ("[repeated.max_items]", "[string.max_len]")


def check(proto: FlowTemplate, contracts: Contracts) -> list[Finding]:
    """The errors and warnings of a template: errors first, then by code and place. Empty if there are none."""
    broken = [*part_checks.check_contract(proto, contracts), *part_checks.check_size(proto)]
    if any(found.code == "HR029" or found.text.endswith(_TOO_LARGE) for found in broken):
        return broken  # the other checks rely on these limits
    findings = [*broken, *_all(proto, contracts)]
    return sorted(findings, key=lambda found: (-found.severity, found.code, found.path))


def _all(proto: FlowTemplate, contracts: Contracts) -> Iterator[Finding]:
    graph = FlowGraph(proto)
    bounds = Bounds(proto, graph, contracts)
    checks = (
        part_checks.check_types(proto, contracts),
        part_checks.check_names(proto),
        part_checks.check_effects(proto),
        part_checks.check_gates(proto, contracts),
        part_checks.check_rules(proto, contracts),
        part_checks.check_own_type(proto, contracts),
        part_checks.check_times(proto),
        search_checks.check_search(proto, contracts),
        flow_checks.check_beginning(proto, graph),
        flow_checks.check_steps(proto, graph),
        flow_checks.check_end(proto, graph),
        flow_checks.check_answers(proto, graph),
        flow_checks.check_gates(proto, graph),
        flow_checks.check_irreversible(proto, graph),
        flow_checks.check_cycles(proto, graph, bounds),
        flow_checks.check_joins(proto, graph, bounds, contracts),
        flow_checks.check_starvation(proto, graph),
        flow_checks.check_size(proto, graph, bounds),
        flow_checks.check_rule_events(proto, graph),
    )
    for findings in checks:
        yield from islice(findings, MAX_FINDINGS)
