"""How long approvals take while one agent floods the broker, beside the same without a flood."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.flood import work
from handrail.cli.dev.package import load_package
from handrail.cli.dev.stack import DevOptions, DevStack

_SETTLE = 2.0


def compare(kinds: Sequence[str], *, rate: int, seconds: float, sync_always: bool) -> None:
    """Measures each kind of flood and prints its row."""
    print(work.HEAD)
    for kind in kinds:
        # Each in a new installation: what an earlier flood left to do would be measured, too.
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            dev = DevOptions(
                folder=Path(folder) / "handrail",
                package=load_package("bench.flood"),
                sync_always=sync_always,
                visibility=False,
            )
            with DevStack(dev) as stack:
                stack.start()
                stack.start_agents()
                time.sleep(_SETTLE)
                uvloop.run(work.measure(stack, kind, rate, seconds))
