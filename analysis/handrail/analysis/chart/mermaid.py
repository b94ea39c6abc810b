"""A chart as a Mermaid flowchart: text that code hosts and wikis render."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.analysis.chart.model import Chart, Kind
from handrail.mesh.printable import clean

_SHAPES = {
    Kind.START: ("([", "])"),
    Kind.EVENT: ("([", "])"),
    Kind.JOIN: ("[[", "]]"),
    Kind.STEP: ("[", "]"),
    Kind.UNDOABLE: ("[", "]"),
    Kind.IRREVERSIBLE: ("[", "]"),
    Kind.GATE: ("{", "}"),
    Kind.RULE: ("{{", "}}"),
    Kind.COMPLETED: ("(((", ")))"),
    Kind.ENDED: ("((", "))"),
}
# Medium lightness with explicit text colours: readable on light and dark pages.
_STYLES = {
    Kind.START: "fill:#334155,stroke:#334155,color:#ffffff",
    Kind.EVENT: "fill:#e2e8f0,stroke:#94a3b8,color:#0f172a",
    Kind.JOIN: "fill:#e2e8f0,stroke:#475569,color:#0f172a",
    Kind.STEP: "fill:#dbeafe,stroke:#2563eb,color:#0f172a",
    Kind.UNDOABLE: "fill:#dbeafe,stroke:#2563eb,stroke-width:3px,stroke-dasharray:6 3,color:#0f172a",
    Kind.IRREVERSIBLE: "fill:#dbeafe,stroke:#1e3a8a,stroke-width:4px,color:#0f172a",
    Kind.GATE: "fill:#fef3c7,stroke:#d97706,color:#0f172a",
    Kind.RULE: "fill:#fee2e2,stroke:#dc2626,color:#0f172a",
    Kind.COMPLETED: "fill:#dcfce7,stroke:#16a34a,color:#0f172a",
    Kind.ENDED: "fill:#fee2e2,stroke:#dc2626,color:#0f172a",
}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.,:/-+…'")


def mermaid(chart: Chart) -> str:
    """The text of the flowchart."""
    return "\n".join([*_lines(chart), ""])


def _lines(chart: Chart) -> Iterator[str]:
    ids = {node.key: f"n{number}" for number, node in enumerate(chart.nodes)}
    yield "flowchart TD"
    for node in chart.nodes:
        opening, closing = _SHAPES[node.kind]
        text = "<br/>".join(map(escaped, node.lines))
        yield f'  {ids[node.key]}{opening}"{text}"{closing}:::{node.kind}'
    for edge in chart.edges:
        arrow = "-.->" if edge.aside else "-->"
        label = f'|"{escaped(edge.label)}"|' if edge.label else ""
        yield f"  {ids[edge.source]} {arrow}{label} {ids[edge.target]}"
    for kind in dict.fromkeys(node.kind for node in chart.nodes):
        yield f"  classDef {kind} {_STYLES[kind]}"


def escaped(text: str) -> str:
    """Escapes text for Mermaid: all but letters, digits and harmless signs become character codes."""
    return "".join(each if each in _PLAIN else f"#{ord(each)};" for each in clean(text))
