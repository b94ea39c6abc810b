"""The workloads."""

from __future__ import annotations

from dataclasses import dataclass

PARK = 0.1
"""Seconds between the request and the approval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A workload. `package` has its agents; `in_flight` is for closed loops, 0 for works of their own kind.

    `has_bare` tells whether the bare chain does it too; `is_paced` whether its latency is measured under a low load.
    """

    label: str
    what: str
    package: str = "bench.chain"
    in_flight: int = 0
    has_bare: bool = False
    is_paced: bool = False


WORKS = {
    "happy": Work(label="W1", what="three steps, no decision", in_flight=500, has_bare=True, is_paced=True),
    "compensated": Work(
        label="W2",
        what="the third step fails for good, two undos",
        in_flight=100,
        has_bare=True,
        is_paced=True,
    ),
    "approved": Work(
        label="W3",
        what=f"one step; a person approves {PARK * 1000:.0f} ms after being asked",
        in_flight=100,
        has_bare=True,
        is_paced=True,
    ),
    "read": Work(label="W4", what="GetFlow of a compensated flow", in_flight=50),
    "watched": Work(
        label="W5", what="three steps; WatchFlow is open on each flow and tells four events", in_flight=1000
    ),
    "timers": Work(label="W6", what="deadlines due at once, beside many armed timers", package="bench.timed"),
    "gated": Work(label="W7", what="one step with a gate that asks nobody", in_flight=100),
    "started": Work(label="W8", what="as W1, started by StartFlow", in_flight=100),
    "join": Work(label="W9", what="a fan-out and a counted join; figures for each part", package="bench.joined"),
}
"""Maps a name to its workload. The labels are those of comparisons with other systems."""
