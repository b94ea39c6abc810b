"""CPU seconds of process trees, from /proc, including ended children."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these processes and all their descendants."""
    children = _children()
    pending, total = list(roots), 0
    while pending:
        process = pending.pop()
        pending += children[process]
        total += sum(int(value) for value in _stat(process)[11:15])
    return total / _TICKS


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
