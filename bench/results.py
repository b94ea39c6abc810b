"""The turns of a run: collected, printed, and written as JSON or as a row of the history."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.figures import CLIENT, Figures, medians
from bench.works import WORKS

BARE, OURS = "bare", "handrail"

HEAD = f"{'work':<17}{'system':<18}{'a second':>10}{'CPU ms each':>13}{'p50 ms':>9}{'count':>9}  CPU ms by process"

HISTORY_HEAD = f"| date | commit |{''.join(f' W{n} flows/s | CPU ms, ratio to bare |' for n in (1, 2, 3))}"


_SHOWN = 0.005
"""CPU milliseconds; a process below it had no part in the work."""


@dataclass(slots=True)
class Results:
    """All turns, by work and system, each in the order of its rounds. `paced` are those at a low load."""

    closed: dict[str, dict[str, list[Figures]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    paced: dict[str, dict[str, list[Figures]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def table(self, work: str) -> Iterator[str]:
        """The lines of a work's table: each system's medians, then the ratios of turns that followed each other."""
        systems = self.closed[work]
        label = f"{WORKS[_base(work)].label} {work}"
        for name, turns in systems.items():
            yield _row(label, name, medians(turns))
        for name in systems:
            if name != OURS and OURS in systems:
                rates = _ratio(systems[OURS], systems[name], lambda turn: turn.rate)
                cpu = _ratio(systems[OURS], systems[name], lambda turn: turn.system_cpu_ms)
                yield f"{'':<17}{OURS} / {name}: {rates:.2f} of the rate, {cpu:.2f} times the CPU"
        for name, turns in self.paced[work].items():
            yield f"{'':<17}{name:<18}{_latencies(medians(turns))}"

    def cpu_ratio(self, work: str) -> float | None:
        """Our CPU for each flow, divided by the bare chain's: the median over the rounds; None without both."""
        systems = self.closed.get(work, {})
        if not (OURS in systems and BARE in systems):
            return None
        return _ratio(systems[OURS], systems[BARE], lambda turn: turn.system_cpu_ms)

    def history_row(self, date: str, commit: str) -> str:
        """A row for the table in docs/performance.md."""
        cells = [date, commit]
        for work in ("happy", "compensated", "approved"):
            turns = self.closed.get(work, {}).get(OURS)
            ratio = self.cpu_ratio(work)
            figures = medians(turns) if turns else None
            cells.append(f"{figures.rate:,.0f}" if figures else "-")
            cpu = f"{figures.system_cpu_ms:.2f}" if figures else "-"
            cells.append(f"{cpu}, {ratio:.2f}" if ratio else cpu)
        return f"| {' | '.join(cells)} |"

    def to_json(self) -> dict[str, Any]:
        """All turns and their medians."""
        return {kind: _json(by_work) for kind, by_work in (("closed", self.closed), ("paced", self.paced))}


def _base(work: str) -> str:
    """The name of a workload without what a size adds: `join` of `join 25`."""
    return work.split(" ", 1)[0]


def _row(label: str, name: str, figures: Figures) -> str:
    if not figures.count:
        return f"{label:<17}{name:<18}{figures.note}"
    parts = ", ".join(
        f"{process} {value:.2f}" for process, value in figures.cpu_ms.items() if process != CLIENT and value >= _SHOWN
    )
    client = f"; client {figures.cpu_ms[CLIENT]:.2f}" if CLIENT in figures.cpu_ms else ""
    note = f" ({figures.note})" if figures.note else ""
    return (
        f"{label:<17}{name:<18}{figures.rate:>10,.0f}{figures.system_cpu_ms:>13.2f}{figures.latency_ms['done'][0]:>9.1f}"
        f"{figures.count:>9,}  {parts}{client}{note}"
    )


def _latencies(figures: Figures) -> str:
    parts = (f"{what} {p50:.1f} / {p99:.1f}" for what, (p50, p99) in figures.latency_ms.items())
    return f"at {figures.rate:g} a second, p50 / p99 ms: {', '.join(parts)}; CPU {figures.system_cpu_ms:.2f} ms each"


def _ratio(ours: list[Figures], theirs: list[Figures], read: Callable[[Figures], float]) -> float:
    pairs = [read(one) / read(other) for one, other in zip(ours, theirs, strict=False) if read(other)]
    return statistics.median(pairs) if pairs else 0.0


def _json(by_work: dict[str, dict[str, list[Figures]]]) -> dict[str, Any]:
    return {
        work: {
            name: {"median": medians(turns).to_json(), "turns": [turn.to_json() for turn in turns]}
            for name, turns in systems.items()
        }
        for work, systems in by_work.items()
    }
