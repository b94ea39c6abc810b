"""CPU seconds of process trees, from /proc, including ended children."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench.figures import CLIENT

_TICKS = os.sysconf("SC_CLK_TCK")

Processes = Mapping[str, Sequence[int]]
"""Maps a name to the process ids whose CPU counts under it."""


def cpu_by_name(processes: Processes) -> dict[str, float]:
    """CPU seconds so far under each name, and those of this process as CLIENT."""
    return {name: cpu_seconds(roots) for name, roots in processes.items()} | {CLIENT: time.process_time()}


def cpu_ms_each(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """CPU milliseconds between two readings, for each of `count` things."""
    return {name: (after[name] - before[name]) / max(1, count) * 1000 for name in before}


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these processes and all their descendants."""
    children = _children()
    pending, total = list(roots), 0
    while pending:
        process = pending.pop()
        pending += children[process]
        total += sum(int(value) for value in _stat(process)[11:15])
    return total / _TICKS


def own_cpu_seconds(processes: Iterable[int]) -> float:
    """User and system time of these processes alone."""
    return sum(int(value) for process in processes for value in _stat(process)[11:13]) / _TICKS


def _children() -> defaultdict[int, list[int]]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))):
            children[int(stat[1])].append(int(name))
    return children


def _stat(process: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the command name; empty if the process has ended."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
