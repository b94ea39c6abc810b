"""Hurry: how soon the timers of a flow have to stand. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from handrail.coordinator.decide.timers import timers
from handrail.coordinator.reconcile.flow_batch import FlowBatch
from handrail.coordinator.reconcile.flow_in_hand import FlowInHand

_FAR = timedelta(seconds=30)
"""How far away the first timer must be for the long lag."""


def is_unhurried(hand: FlowInHand | None, batch: FlowBatch, timeouts: Iterable[timedelta]) -> bool:
    """Tells whether the first timer that the flow needs after these messages is far away.

    `timeouts` are those of the steps that flows of its type may have: a message that the flow in hand lacks may begin
    any of them. A flow that needs no timer is being decided on, or waits for a person. A halted one is in a hurry while
    something may be left to decide: its undos and its end wait for that, and no timer tells.
    """
    is_covered = hand is not None and all(hand.covers(each.sequence) for each in batch.deliveries)
    if not is_covered and min(timeouts, default=timedelta()) <= _FAR:
        return False
    if hand is None:
        return True
    first = min(timers(hand.flow).values(), default=None)
    is_far = first is None or first - batch.last_time > _FAR
    goes_on = first is not None and hand.flow.halt is None
    return is_far and (goes_on or (is_covered and batch.last_sequence <= hand.decided_up_to))
