"""`make picture`: draws packages and their imports.

A room is a subpackage of a large part, such as `mesh.fold`; each other part is one room. An arrow is an import, also
within a function. The picture leaves out an arrow if other arrows lead to the same room. `--list` prints all arrows
and layers as text.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from handrail.analysis.chart.model import Chart, Edge, Kind, Node
from handrail.analysis.chart.svg import svg

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"

WITH_ROOMS = ("mesh", "analysis", "coordinator")
"""The parts with subpackages. Modules beside the subpackages belong to no room."""

Arrows = Mapping[str, frozenset[str]]
"""For each room, the rooms that it imports from."""


def parts() -> list[str]:
    """Our own import roots, from pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    roots: list[str] = settings["tool"]["hatch"]["build"]["dev-mode-dirs"]
    return [root for root in roots if "/" not in root]


def room_of(name: str) -> str | None:
    """The room of our module with this dotted name; None for other modules and for modules without a room."""
    match name.split("."):
        case ["handrail", part, room, *_] if part in WITH_ROOMS:
            return f"{part}.{room}" if (ROOT / part / "handrail" / part / room).is_dir() else None
        case ["handrail", part, *_] if part in parts() and part not in WITH_ROOMS:
            return part
        case _:
            return None


def arrows() -> Arrows:
    """The imports of each room from other rooms."""
    found: dict[str, set[str]] = {}
    for part in parts():
        for path in sorted((ROOT / part / "handrail").rglob("*.py")):
            room = room_of(_dotted(path, part))
            if room is not None:
                targets = {room_of(name) for name in _imported(path)} - {room, None}
                found.setdefault(room, set()).update(each for each in targets if each is not None)
    return {room: frozenset(targets) for room, targets in sorted(found.items())}


def circle(rooms: Arrows) -> list[str]:
    """The rooms of one circle of imports, in order; empty if there is none."""
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def layers(rooms: Arrows) -> dict[str, int]:
    """The number of rooms below each room, on the longest path of imports."""
    below: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        below[room] = max((below[each] + 1 for each in rooms.get(room, ())), default=0)
    return below


def drawn() -> str:
    """The picture as SVG."""
    rooms = arrows()
    nodes = [Node(room, Kind.STEP if "." in room else Kind.EVENT, (room,), tip=_purpose(room)) for room in rooms]
    edges = [Edge(room, target) for room in rooms for target in sorted(_direct(room, rooms))]
    return svg(Chart("The rooms of Handrail and what they import", tuple(nodes), tuple(edges)))


def _direct(room: str, rooms: Arrows) -> frozenset[str]:
    """The arrows of a room that other arrows do not replace."""
    further = {each for target in rooms[room] for each in _reached(target, rooms)}
    return rooms[room] - further


def _reached(room: str, rooms: Arrows) -> Iterator[str]:
    for target in rooms.get(room, ()):
        yield target
        yield from _reached(target, rooms)


def _purpose(room: str) -> str:
    part, _, name = room.partition(".")
    path = ROOT / part / "handrail" / part / name / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.exists() else None
    return (text or "").partition("\n")[0]


def _dotted(path: Path, part: str) -> str:
    names = path.relative_to(ROOT / part).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def _imported(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def main() -> int:
    """Draws the picture, or lists its content; returns 1 if there is a circle."""
    rooms = arrows()
    if found := circle(rooms):
        print(f"a circle: {' → '.join(found)}", file=sys.stderr)
        return 1
    if "--list" in sys.argv[1:]:
        for room, layer in sorted(layers(rooms).items(), key=lambda each: (each[1], each[0])):
            print(f"{layer:2}  {room:24} {', '.join(sorted(rooms.get(room, ()))) or '-'}")
        print(f"{len(rooms)} rooms, {sum(map(len, rooms.values()))} arrows, no circle")
        return 0
    PICTURE.write_text(drawn(), "utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {len(rooms)} rooms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
