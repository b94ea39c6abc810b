"""When the broker delivers a message again that this worker could not handle."""

from __future__ import annotations

import random
from datetime import timedelta

from handrail.agents.errors import Busy, NoHandler, Postponed

_LONGEST_DELAY = timedelta(minutes=5)
_BUSY_DELAY = timedelta(seconds=1)
_QUICK_DELAY, _QUICK = timedelta(milliseconds=250), 12
"""The first delays while another worker may fit, and how many of them there are."""


def delay(delivered: int) -> timedelta:
    """Returns how long a message is handed back for: one second at first, then four times as long each time."""
    return min(timedelta(seconds=4 ** min(delivered - 1, 8)), _LONGEST_DELAY)


def delay_after(postponed: Postponed, delivered: int) -> timedelta:
    """Returns how long a message is handed back for because this worker can't handle it now."""
    match postponed:
        case Busy():
            return min(_BUSY_DELAY, postponed.at_most)
        case NoHandler():
            # The broker serves workers in turn: messages that came back in the same order each time would meet the
            # same workers each time. Less chance than this keeps the order for long.
            return min(_delay_for_others(delivered), postponed.at_most) * random.random()
        case _:
            return delay(delivered)


def _delay_for_others(delivered: int) -> timedelta:
    """Returns the longest delay if another worker may fit: short at first, as that one may get the next delivery."""
    doublings = min(max(delivered - _QUICK, 0), 20)
    return min(_QUICK_DELAY * (1 << doublings), _LONGEST_DELAY)
