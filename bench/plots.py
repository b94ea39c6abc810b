"""`make bench-plots ARGS='FILE.json FOLDER'`: pictures of a run that `make bench ARGS='--json FILE.json'` wrote.

An SVG file for each workload: the CPU of a flow, by process, one bar for each system. Drawn by hand: a library for
pictures would be the largest thing that developers install.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.figures import CLIENT, Figures
from bench.works import WORKS

_WIDTH, _NAMES, _BAR, _GAP, _TOP = 760, 130, 22, 14, 58
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
_FONT = 'font-family="sans-serif" font-size="12"'


def main() -> int:
    """Draws the pictures and prints the names of their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    run = json.loads(options.file.read_text())
    options.folder.mkdir(parents=True, exist_ok=True)
    for work, systems in run["closed"].items():
        figures = {name: Figures.from_json(each["median"]) for name, each in systems.items()}
        done = {name: each for name, each in figures.items() if each.count}
        if done:
            path = options.folder / f"{work.replace(' ', '-')}.svg"
            path.write_text(picture(work, done, f"{run['commit']}, {run['time'][:10]}"))
            print(path)
    return 0


def picture(work: str, systems: Mapping[str, Figures], about: str) -> str:
    """An SVG with a bar for each system, as long as the CPU milliseconds of a flow."""
    longest = max(figures.system_cpu_ms for figures in systems.values()) or 1.0
    processes = list(dict.fromkeys(name for each in systems.values() for name in each.cpu_ms if name != CLIENT))
    colours = {name: _COLOURS[nth % len(_COLOURS)] for nth, name in enumerate(processes)}
    height = _TOP + len(systems) * (_BAR + _GAP)
    title = f"{WORKS[work.split(' ', 1)[0]].label} {work}: CPU ms each ({about})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" {_FONT}>{escape(title)}</text>',
        *_legend(colours),
    ]
    for nth, (name, figures) in enumerate(systems.items()):
        parts += _bar(name, figures, _TOP + nth * (_BAR + _GAP), (_WIDTH - _NAMES - 60) / longest, colours)
    return "\n".join([*parts, "</svg>\n"])


def _legend(colours: Mapping[str, str]) -> Iterator[str]:
    step = (_WIDTH - 16) / len(colours)
    for nth, (name, colour) in enumerate(colours.items()):
        x = 8 + nth * step
        yield f'<rect x="{x:.0f}" y="30" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 14:.0f}" y="40" {_FONT}>{escape(name)}</text>'


def _bar(name: str, figures: Figures, y: float, scale: float, colours: Mapping[str, str]) -> Iterator[str]:
    yield f'<text x="8" y="{y + 15:.0f}" {_FONT}>{escape(name)}</text>'
    x = float(_NAMES)
    for process, value in figures.cpu_ms.items():
        if process != CLIENT:
            yield (
                f'<rect x="{x:.1f}" y="{y:.0f}" width="{value * scale:.1f}" height="{_BAR}" fill="{colours[process]}"/>'
            )
            x += value * scale
    yield f'<text x="{x + 6:.1f}" y="{y + 15:.0f}" {_FONT}>{figures.system_cpu_ms:.2f}</text>'


if __name__ == "__main__":
    sys.exit(main())
