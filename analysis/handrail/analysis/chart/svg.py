"""A chart as SVG: one self-contained file for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from handrail.analysis.chart.layout import Point, Size, layout
from handrail.analysis.chart.model import Chart, Kind, Node
from handrail.mesh.printable import clean

_LINE = 16.0
_MARGIN = 24.0
_CUT = 14.0
"""The size of the cut corners of rules and joins."""
_PADDING = Size(14, 10)
_ROUND = {Kind.START, Kind.EVENT, Kind.COMPLETED, Kind.ENDED}

# Widths in em of the widest common fonts (Verdana, DejaVu Sans): text that fits with them fits with others.
_NARROW, _WIDE, _PLAIN_WIDTH = 0.45, 1.02, 0.69
_NARROW_SIGNS = frozenset("ijl.,:;'|!()[]{}Itfr /")
_WIDE_SIGNS = frozenset("mwMWOQ@%—…&")
_FONT_SIZE = 12.0

_STYLE = """
svg { --page: #ffffff; --ink: #0f172a; --dim: #475569; --line: #64748b; --aside: #dc2626;
  --step: #eff6ff; --step-line: #2563eb; --event: #f1f5f9; --event-line: #94a3b8; --gate: #fffbeb; --gate-line: #d97706;
  --bad: #fef2f2; --bad-line: #dc2626; --good: #f0fdf4; --good-line: #16a34a; --start: #1e293b; --start-ink: #ffffff; }
@media (prefers-color-scheme: dark) { svg { --page: #0f172a; --ink: #f1f5f9; --dim: #cbd5e1; --line: #94a3b8;
  --aside: #f87171; --step: #172554; --step-line: #60a5fa; --event: #1e293b; --event-line: #64748b; --gate: #422006;
  --gate-line: #fbbf24; --bad: #450a0a; --bad-line: #f87171; --good: #052e16; --good-line: #4ade80; --start: #e2e8f0;
  --start-ink: #0f172a; } }
text { font: 12px Verdana, "DejaVu Sans", sans-serif; fill: var(--dim); text-anchor: middle; }
.name { font-weight: bold; fill: var(--ink); }
.page { fill: var(--page); }
.edge { fill: none; stroke: var(--line); stroke-width: 1.5; }
.aside { stroke: var(--aside); stroke-dasharray: 5 4; }
.head { fill: var(--line); }
.aside-head { fill: var(--aside); }
.shape { stroke-width: 1.5; }
.step, .undoable, .irreversible { fill: var(--step); stroke: var(--step-line); }
.irreversible { stroke-width: 3.5; }
.mark { fill: none; stroke: var(--step-line); stroke-width: 1.8; }
.event, .join { fill: var(--event); stroke: var(--event-line); }
.gate { fill: var(--gate); stroke: var(--gate-line); }
.rule, .ended { fill: var(--bad); stroke: var(--bad-line); }
.completed { fill: var(--good); stroke: var(--good-line); }
.start { fill: var(--start); stroke: var(--start); }
.label { font-size: 10px; fill: var(--aside); stroke: var(--page); stroke-width: 3; paint-order: stroke; }
.on-start { fill: var(--start-ink); }
"""


def svg(chart: Chart) -> str:
    """The SVG file as text."""
    return "\n".join([*_lines(chart, f"<style>{_STYLE}</style>", {}), ""])


def drawing(chart: Chart, looks: Mapping[str, str] | None = None) -> str:
    """The chart as an SVG element of a page, which has the styles. `looks` are classes of nodes, by their keys."""
    return "\n".join(_lines(chart, "", looks or {}))


def _lines(chart: Chart, style: str, looks: Mapping[str, str]) -> Iterator[str]:
    sizes = {node.key: _size(node) for node in chart.nodes}
    drawn = layout(sizes, [(edge.source, edge.target) for edge in chart.edges])
    width, height = (each + 2 * _MARGIN for each in drawn.size)
    box = f"{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="{box}" role="img">'
    )
    yield f"<title>{_shown(chart.title)}</title>"
    if style:
        yield style
    for name in ("head", "aside-head"):
        yield (
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" '
            f'markerUnits="userSpaceOnUse"><path class="{name}" d="M0 0L8 4L0 8z"/></marker>'
        )
    yield f'<rect class="page" x="{-_MARGIN:g}" y="{-_MARGIN:g}" width="{width:.0f}" height="{height:.0f}"/>'
    labels: list[str] = []
    for edge in chart.edges:
        way = drawn.ways.get((edge.source, edge.target))
        if way:
            look, head = ("edge aside", "aside-head") if edge.aside else ("edge", "head")
            faded = " unreached" if looks.get(edge.target) == "unreached" else ""
            look += faded
            yield f'<path class="{look}" marker-end="url(#{head})" d="{_path(way)}"/>'
            if edge.label:
                labels.append(_label(edge.label, way, f"label{faded}"))
    for node in chart.nodes:
        yield from _node(node, drawn.places[node.key], sizes[node.key], looks.get(node.key, ""))
    yield from labels
    yield "</svg>"


def _label(text: str, way: Sequence[Point], look: str) -> str:
    """The label of an edge where that first goes sideways: in the gap between two layers, where no node is."""
    start, end = way[1], way[2]
    x, y = (start.x + end.x) / 2, (start.y + end.y) / 2 + 4
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}">{_shown(text)}</text>'


def _path(way: Sequence[Point]) -> str:
    """The path data: straight lines down, curves sideways."""
    parts = [f"M{way[0].x:.1f} {way[0].y:.1f}"]
    for start, end in pairwise(way):
        if abs(start.x - end.x) < 0.05 and abs(start.y - end.y) < 0.05:
            continue  # the arrow head takes its direction from the last segment, which must have one
        if abs(start.x - end.x) < 0.5:
            parts.append(f"L{end.x:.1f} {end.y:.1f}")
        else:
            middle = (start.y + end.y) / 2
            parts.append(f"C{start.x:.1f} {middle:.1f} {end.x:.1f} {middle:.1f} {end.x:.1f} {end.y:.1f}")
    return "".join(parts)


def _node(node: Node, at: Point, size: Size, look: str) -> Iterator[str]:
    yield f'<g class="{look}">' if look else "<g>"
    if node.tip:
        yield f"<title>{_shown(node.tip)}</title>"
    yield f'<path class="shape {node.kind}" d="{_outline(node.kind, at, size)}"/>'
    if node.kind is Kind.UNDOABLE:
        yield f'<path class="mark" d="{_undo_mark(Point(at.x + size.width / 2 - 15, at.y - size.height / 2 + 14))}"/>'
    first = at.y - _LINE * (len(node.lines) - 1) / 2
    for number, line in enumerate(node.lines):
        style = "on-start" if node.kind is Kind.START else "name" if number == 0 else ""
        attribute = f' class="{style}"' if style else ""
        yield f'<text{attribute} x="{at.x:.1f}" y="{first + number * _LINE + 4:.1f}">{_shown(line)}</text>'
    yield "</g>"


def _outline(kind: Kind, at: Point, size: Size) -> str:
    left, right = at.x - size.width / 2, at.x + size.width / 2
    top, bottom = at.y - size.height / 2, at.y + size.height / 2
    if kind is Kind.GATE:
        return _polygon((at.x, top), (right, at.y), (at.x, bottom), (left, at.y))
    if kind is Kind.RULE:
        cut = min(16.0, size.height / 2)
        return _polygon(
            (left + cut, top),
            (right - cut, top),
            (right, at.y),
            (right - cut, bottom),
            (left + cut, bottom),
            (left, at.y),
        )
    if kind is Kind.JOIN:
        return _polygon((left, top), (right, top), (right - _CUT, bottom), (left + _CUT, bottom))
    radius = min(size.height / 2, 15.0) if kind in _ROUND else 4.0
    across, down = size.width - 2 * radius, size.height - 2 * radius
    corner = f"a{radius:g} {radius:g} 0 0 1"
    return (
        f"M{left + radius:.1f} {top:.1f}h{across:.1f}{corner} {radius:g} {radius:g}v{down:.1f}{corner} {-radius:g} "
        f"{radius:g}h{-across:.1f}{corner} {-radius:g} {-radius:g}v{-down:.1f}{corner} {radius:g} {-radius:g}z"
    )


def _polygon(*corners: tuple[float, float]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "z"


def _undo_mark(at: Point) -> str:
    """An arrow that points back."""
    return f"M{at.x - 5:.1f} {at.y:.1f}h7a3.5 3.5 0 0 1 0 7h-3M{at.x - 2:.1f} {at.y - 3:.1f}l-3 3l3 3"


def _size(node: Node) -> Size:
    """The size that the lines of a node need in its shape."""
    widths = [_width(line, bold=number == 0) for number, line in enumerate(node.lines)]
    text = _LINE * len(widths)
    if node.kind is Kind.GATE:
        return _diamond(widths)
    sides = {Kind.RULE: _CUT, Kind.JOIN: _CUT, Kind.UNDOABLE: 18.0}.get(node.kind, 0.0)
    padding = 6.0 if node.kind in (Kind.EVENT, Kind.JOIN) else _PADDING.height
    return Size(max(widths) + 2 * (_PADDING.width + sides), text + 2 * padding)


def _diamond(widths: Sequence[float]) -> Size:
    """The narrowest diamond, twice as high as its lines, that fits each line at its height."""
    half = _LINE * len(widths)
    wanted = 0.0
    for number, width in enumerate(widths):
        away = abs(number - (len(widths) - 1) / 2) * _LINE + _LINE / 2
        wanted = max(wanted, (width + _PADDING.width) / (1 - away / half))
    return Size(wanted, 2 * half)


def _shown(text: str) -> str:
    """Text escaped for XML."""
    return escape(clean(text))


def _width(text: str, *, bold: bool) -> float:
    em = sum(
        _NARROW if each in _NARROW_SIGNS else _WIDE if each in _WIDE_SIGNS or ord(each) > 0x2000 else _PLAIN_WIDTH
        for each in clean(text)
    )
    return em * _FONT_SIZE * (1.12 if bold else 1.0)
