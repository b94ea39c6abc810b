"""The garbage collector of a process that handles messages for months."""

from __future__ import annotations

import gc


def calm() -> None:
    """Have it look at what is new, and not so often, once everything long-lived is there.

    What a message allocates goes by reference counting. Looking for cycles in it cost 20 % of the CPU of a busy worker,
    and as much of a busy coordinator's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
