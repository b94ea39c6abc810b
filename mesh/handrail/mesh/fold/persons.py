"""The acts of people in the decisions of a flow: which decision is which act, and in whose name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.any_pb2 import Any

from handrail.mesh.flow import Flow, PendingResolution
from handrail.mesh.wire.envelope import type_of
from handrail.mesh.wire.identity import same
from handrail.v1.act_pb2 import Act
from handrail.v1.decision_pb2 import (
    ApprovalReassigned,
    Choice,
    FlowHalted,
    FlowMigrated,
    HaltMode,
    Resolved,
    StepReopened,
)

_OF_CHOICE = {
    Choice.CHOICE_CANCEL: Act.ACT_CANCEL,
    Choice.CHOICE_FAIL: Act.ACT_CANCEL,
    Choice.CHOICE_COMPENSATE: Act.ACT_COMPENSATE,
    Choice.CHOICE_RETRY: Act.ACT_RETRY,
}
_MODE_OF_CHOICE = {
    Choice.CHOICE_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    Choice.CHOICE_CANCEL: HaltMode.HALT_MODE_CANCEL,
    Choice.CHOICE_FAIL: HaltMode.HALT_MODE_FAIL,
}


class Doing(NamedTuple):
    """What a decision does in whose name: a person's acts; none if the coordinator decided by itself."""

    acts: frozenset[Act.ValueType]
    by: str
    reason: str = ""


_NOTHING = Doing(frozenset(), "")


def doing(data: Any, resolution: PendingResolution | None = None) -> Doing:
    """The acts that a decision is; empty for any other message. Raises DecodeError if it can't be parsed.

    A halt that carries out `resolution`, the answer of a person to an escalation, is no act of its own: the answer was.
    """
    parse = _PARSED.get(type_of(data))
    return _NOTHING if parse is None else parse(data.value, resolution)


def missing(flow: Flow, data: Any) -> frozenset[Act.ValueType]:
    """The acts in a decision that nobody may do alone in this flow; empty if one person is enough."""
    if not flow.template.require_two:
        return frozenset()
    return doing(data, flow.pending_resolution).acts & flow.template.require_two


def _of_halt(body: bytes, resolution: PendingResolution | None) -> Doing:
    halted = FlowHalted.FromString(body)
    if not halted.by or _carries_out(halted, resolution):
        return _NOTHING
    act = Act.ACT_COMPENSATE if halted.mode == HaltMode.HALT_MODE_COMPENSATE else Act.ACT_CANCEL
    return Doing(frozenset({act}), halted.by, halted.reason)


def _carries_out(halted: FlowHalted, resolution: PendingResolution | None) -> bool:
    if resolution is None or halted.to_step or halted.keep_effects:
        return False
    return _MODE_OF_CHOICE.get(resolution.choice) == halted.mode and same(resolution.by, halted.by)


def _of_reopening(body: bytes, _resolution: PendingResolution | None) -> Doing:
    reopened = StepReopened.FromString(body)
    return Doing(frozenset({Act.ACT_RETRY}), reopened.by, reopened.reason)


def _of_answer(body: bytes, _resolution: PendingResolution | None) -> Doing:
    resolved = Resolved.FromString(body)
    also = _OF_CHOICE.get(resolved.choice)
    acts = {Act.ACT_RESOLVE} if also is None else {Act.ACT_RESOLVE, also}
    return Doing(frozenset(acts), resolved.by, resolved.reason)


def _of_migration(body: bytes, _resolution: PendingResolution | None) -> Doing:
    migrated = FlowMigrated.FromString(body)
    return Doing(frozenset({Act.ACT_MIGRATE}), migrated.by, migrated.reason)


def _of_reassignment(body: bytes, _resolution: PendingResolution | None) -> Doing:
    reassigned = ApprovalReassigned.FromString(body)
    return Doing(frozenset({Act.ACT_REASSIGN}), reassigned.by, reassigned.reason)


_PARSED: dict[str, Callable[[bytes, PendingResolution | None], Doing]] = {
    FlowHalted.DESCRIPTOR.full_name: _of_halt,
    StepReopened.DESCRIPTOR.full_name: _of_reopening,
    Resolved.DESCRIPTOR.full_name: _of_answer,
    FlowMigrated.DESCRIPTOR.full_name: _of_migration,
    ApprovalReassigned.DESCRIPTOR.full_name: _of_reassignment,
}
