"""The tables at the end of a run: the result of each folder, and the most complex functions."""

from typing import Any

from demos.research.audit import Evidence
from demos.research.plan import Plan
from demos.stage.story import table

_WORST = 8


def outcome_table(plan: Plan, evidence: Evidence) -> list[str]:
    """A row for each folder."""
    rows = [["folder", "files", "lines", "functions", "mean complexity", "long", "dead imports", "answer", "report"]]
    for name, written in evidence.written.items():
        totals = evidence.totals(name)
        functions = totals.get("functions", 0)
        mean = f"{totals.get('complexity', 0) / functions:.1f}" if functions else ""
        figures = [f"{totals.get(what, 0):,}" for what in ("files", "lines", "functions")]
        dead = len(_listed(evidence, name, "remove"))
        answer = f"{plan.votes[name].voter}: {'no' if written.refused else 'yes'}"
        rows.append([name, *figures, mean, str(totals.get("long_functions", 0)), str(dead), answer, written.report])
    return table(rows)


def worst_table(evidence: Evidence) -> list[str]:
    """The most complex functions of all folders."""
    found = [
        (each["complexity"], f"{name}/{each['path']}:{each['line']}", each["name"], each["lines"])
        for name in evidence.written
        for each in _listed(evidence, name, "simplify")
    ]
    worst = sorted(found, key=lambda each: -each[0])[:_WORST]
    rows = [["to simplify", "lines", "complexity"]]
    rows += [[f"{function}  {where}", str(lines), str(complexity)] for complexity, where, function, lines in worst]
    return table(rows)


def _listed(evidence: Evidence, name: str, what: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = evidence.reports.figures(evidence.written[name].report).get(what, [])  # type: ignore[assignment]
    return listed
