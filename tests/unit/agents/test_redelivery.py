"""When a message comes again that no handler of this worker fits, although one of another worker may."""

from __future__ import annotations

import heapq
import random
from datetime import timedelta
from itertools import cycle

from handrail.agents.errors import NoHandler
from handrail.agents.redelivery import delay_after

PAIRS = 20
OFTEN = 17
"""Deliveries that none of this many messages needs, if each reaches the worker that fits every second time."""


def deliveries(messages: list[str]) -> list[int]:
    """How often each message is delivered until the worker has it that it is for; two workers, `a` and `b`, in turn."""
    turns = cycle("ab")
    waiting = [(timedelta(), number, 1) for number in range(len(messages))]
    counts = [0] * len(messages)
    while waiting:
        now, number, delivered = heapq.heappop(waiting)
        counts[number] = delivered
        if next(turns) != messages[number]:
            heapq.heappush(waiting, (now + delay_after(NoHandler(), delivered), number, delivered + 1))
    return counts


def test_messages_that_come_back_together_do_not_miss_their_workers_each_time() -> None:
    random.seed(1)
    assert deliveries(["a", "b"] * PAIRS) == [1] * 2 * PAIRS, "each is where it belongs at once"
    for _ in range(10):
        assert max(deliveries(["b", "a"] * PAIRS)) < OFTEN, "none is, at first"


def test_a_message_that_nobody_fits_comes_less_and_less_often_but_before_its_time_is_over() -> None:
    hurried = NoHandler()
    hurried.at_most = timedelta(seconds=7.5)
    random.seed(1)
    for postponed, delivered, longest in (
        (NoHandler(), 1, timedelta(milliseconds=250)),
        (NoHandler(), 12, timedelta(milliseconds=250)),
        (NoHandler(), 14, timedelta(seconds=1)),
        (NoHandler(), 1000, timedelta(minutes=5)),
        (hurried, 1000, timedelta(seconds=7.5)),
    ):
        delays = [delay_after(postponed, delivered) for _ in range(100)]
        assert longest * 0.9 < max(delays) <= longest
