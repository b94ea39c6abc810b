"""The standing of a flow: final or open, from its messages and the table of halts in `docs/state-machine.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from handrail.cli.verify.account import Account
from handrail.cli.verify.record import Message
from handrail.v1.decision_pb2 import (
    CompensationStarted,
    Escalated,
    FlowClosed,
    FlowHalted,
    FlowResumed,
    FlowStatus,
    HaltMode,
)

OPEN = FlowStatus.FLOW_STATUS_UNSPECIFIED
"""Not final."""

FOR_EVER = 1 << 63
"""After every sequence."""

UNDOING = frozenset({HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL})
_FINAL = {
    HaltMode.HALT_MODE_COMPENSATE: FlowStatus.FLOW_STATUS_COMPENSATED,
    HaltMode.HALT_MODE_CANCEL: FlowStatus.FLOW_STATUS_CANCELLED,
    HaltMode.HALT_MODE_FAIL: FlowStatus.FLOW_STATUS_FAILED,
    HaltMode.HALT_MODE_COMPLETE: FlowStatus.FLOW_STATUS_COMPLETED,
}
_FOLLOWS = {each.DESCRIPTOR.full_name for each in (CompensationStarted, FlowClosed, Escalated, FlowResumed)}


@dataclass(frozen=True, slots=True)
class Halt:
    """A halt that counts: the range of the stream in which no forward step may start."""

    halted: FlowHalted
    since: int
    until: int = FOR_EVER

    @property
    def undoes(self) -> bool:
        """Tells whether the flow's effects are to be undone."""
        return self.halted.mode in UNDOING and not self.halted.keep_effects


@dataclass(frozen=True, slots=True)
class Standing:
    """`status` is final or OPEN. `halts` are those that count, in stream order; the last one may still be in force."""

    status: FlowStatus.ValueType
    halts: tuple[Halt, ...]

    @property
    def is_halted(self) -> bool:
        """Tells whether a halt is still in force."""
        return bool(self.halts) and self.halts[-1].until == FOR_EVER


def standing(account: Account) -> Standing:
    """Returns the standing of the flow after its last message."""
    halts: list[Halt] = []
    closed = OPEN
    for message in account.decisions(FlowHalted, FlowResumed, FlowClosed):
        held = halts[-1] if halts and halts[-1].until == FOR_EVER else None
        if message.type == FlowHalted.DESCRIPTOR.full_name:
            halted = FlowHalted.FromString(message.data)
            if _may_halt(account, held, closed, halted, message.sequence) and _is_meant(account, halted, message):
                halts.append(Halt(halted, message.sequence))
                closed = OPEN
        elif held is not None and message.type == FlowResumed.DESCRIPTOR.full_name:
            halts[-1] = Halt(held.halted, held.since, message.sequence)
        elif held is not None and message.type == FlowClosed.DESCRIPTOR.full_name:
            status = FlowClosed.FromString(message.data).status
            if _FINAL.get(held.halted.mode) == status and not _left(account, held, message.sequence):
                closed = status
    final = Standing(closed, tuple(halts))
    if final.is_halted:
        return Standing(OPEN, final.halts) if closed and _left(account, halts[-1], FOR_EVER) else final
    if account.is_complete(FOR_EVER):
        return Standing(FlowStatus.FLOW_STATUS_COMPLETED, final.halts)
    return final


def _may_halt(
    account: Account, held: Halt | None, closed: FlowStatus.ValueType, halted: FlowHalted, sequence: int
) -> bool:
    if closed:
        return halted.mode == HaltMode.HALT_MODE_COMPENSATE and held is not None and not held.undoes
    if held is None:
        return halted.mode == HaltMode.HALT_MODE_COMPENSATE or not account.is_complete(sequence - 1)
    if held.halted.mode == HaltMode.HALT_MODE_HOLD or held.halted.to_step:
        return halted.mode != HaltMode.HALT_MODE_HOLD
    if held.halted.mode in UNDOING:
        return False
    return halted.mode in UNDOING


def _is_meant(account: Account, halted: FlowHalted, message: Message) -> bool:
    """Tells whether an automatic halt was still justified when it was stored.

    If the flow had moved on since the halt was decided, the messages that followed tell.
    """
    if halted.by:
        return True
    between = (message.event.based_on_sequence, message.sequence)
    moved_on = any(between[0] < each.sequence < between[1] for each in account.messages)
    return not moved_on or any(_follow(account, message))


def _follow(account: Account, halt: Message) -> Iterator[Message]:
    return (
        each
        for each in account.messages
        if each.sequence > halt.sequence and (each.kind == "undo" or each.type in _FOLLOWS)
    )


def _left(account: Account, halt: Halt, up_to: int) -> bool:
    return halt.undoes and bool(account.standing_effects(up_to))
