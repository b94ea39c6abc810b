"""How much is worked on at once, and when processes help."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

_MOST = 4


def default_processes() -> int:
    """As many as there are cores, but none on a single one, and no more than 4: the process that reads and writes keeps
    no more of them busy.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 else min(_MOST, cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Numbers of messages, and of processes."""

    processes: int = field(default_factory=default_processes)
    """Processes that help to fold while much is left; 0: none."""
    batch: int = 10_000
    """About the most messages of a batch. As many may wait while one is worked on."""
    many: int = 500
    """After a batch of so many, more is collected for the next one, and it is looked how much is left."""
    much: int = 20_000
    """With so much left, processes are started."""
    few: int = 8_000
    """With less left, they are ended."""
    patience: timedelta = timedelta(minutes=2)
    """How long a process may take to fold its share of a batch, on a busy machine."""
