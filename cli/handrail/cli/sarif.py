"""Findings in SARIF 2.1.0, the format in which code hosts show them beside their lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from handrail.analysis.check.typecheck import CODES, Code
from handrail.cli.output import Json
from handrail.cli.version import VERSION
from handrail.v1.template_pb2 import Finding, Severity

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.SEVERITY_ERROR: "error", Severity.SEVERITY_WARNING: "warning"}


def sarif(findings: Iterable[tuple[Path, Finding]]) -> dict[str, Json]:
    """Returns a log with one run: every rule, and a result for each finding."""
    rules = sorted(CODES)
    tool: dict[str, Json] = {
        "driver": {
            "name": "handrail",
            "version": VERSION,
            "rules": [_rule(code, CODES[code]) for code in rules],
        }
    }
    results: list[Json] = [_result(path, found, rules.index(found.code)) for path, found in findings]
    run: dict[str, Json] = {"tool": tool, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str, code: Code) -> dict[str, Json]:
    return {
        "id": name,
        "shortDescription": {"text": code.title},
        "help": {"text": code.remedy},
        "defaultConfiguration": {"level": _LEVELS[code.severity]},
    }


def _result(path: Path, found: Finding, rule: int) -> dict[str, Json]:
    place = f"{found.path}: " if found.path else ""
    return {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": _LEVELS[found.severity],
        "message": {"text": f"{place}{found.text}. {found.remedy}".strip()},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": path.as_uri() if path.is_absolute() else quote(path.as_posix())},
                    "region": {"startLine": max(found.line, 1), "startColumn": max(found.column, 1)},
                }
            }
        ],
    }
