"""What one turn of a workload measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

CLIENT = "client"
"""The process that measures. Its CPU is shown, and not counted as the system's."""

SERVER = "nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One turn: `count` things happened, flows in most workloads, `rate` of them a second.

    `cpu_ms` has the CPU milliseconds of each process per thing, user and system, over the whole turn. `latency_ms` maps
    what was waited for to its median and its 99th percentile.
    """

    count: int
    rate: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""

    @property
    def system_cpu_ms(self) -> float:
        """The CPU of all processes but the client."""
        return sum(value for process, value in self.cpu_ms.items() if process != CLIENT)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figures:
        """What `to_json` gave."""
        latencies = {name: (float(p50), float(p99)) for name, (p50, p99) in value["latency_ms"].items()}
        return cls(**{**value, "latency_ms": latencies})


def medians(turns: Sequence[Figures]) -> Figures:
    """The median of each figure; the count of all turns together. A turn that was not done stands for all."""
    undone = [turn for turn in turns if not turn.count]
    if undone:
        return undone[0]
    return Figures(
        count=sum(turn.count for turn in turns),
        rate=median(turn.rate for turn in turns),
        cpu_ms={name: median(turn.cpu_ms[name] for turn in turns) for name in turns[0].cpu_ms},
        latency_ms={
            name: (
                median(turn.latency_ms[name][0] for turn in turns),
                median(turn.latency_ms[name][1] for turn in turns),
            )
            for name in turns[0].latency_ms
        },
        note=turns[-1].note,
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000
