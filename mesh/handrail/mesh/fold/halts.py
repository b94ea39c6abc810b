"""Halts, after which no forward step starts, and the end of a flow by decision."""

from __future__ import annotations

from typing import NamedTuple

from handrail.mesh.flow import Divergence, Flow, Halt, RunState, Void
from handrail.mesh.fold import approvals, rules, status
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import FlowClosed, FlowHalted, FlowStatus, HaltMode, RuleAction
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import FailureAction, RejectAction

_OF_RULE = {
    RuleAction.RULE_ACTION_ESCALATE: HaltMode.HALT_MODE_HOLD,
    RuleAction.RULE_ACTION_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    RuleAction.RULE_ACTION_FAIL: HaltMode.HALT_MODE_FAIL,
    RuleAction.RULE_ACTION_COMPLETE: HaltMode.HALT_MODE_COMPLETE,
}
_OF_REJECTION = {
    RejectAction.REJECT_ACTION_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    RejectAction.REJECT_ACTION_FAIL: HaltMode.HALT_MODE_FAIL,
}
_OF_FAILURE = {
    FailureAction.FAILURE_ACTION_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    FailureAction.FAILURE_ACTION_FAIL: HaltMode.HALT_MODE_FAIL,
}
_UNDO = (HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL)


TOO_LARGE = "TOO_LARGE: "
"""Prefix of the reason of a hold because the broker refuses a message of the flow as too large. The stream does not
show the broker's limit, so the fold has to trust the coordinator.
"""


class Due(NamedTuple):
    """A halt that the template requires: its mode and the reason."""

    mode: HaltMode.ValueType
    reason: str


def diverged(divergence: Divergence) -> str:
    """A divergence as text for people."""
    return f"agent {divergence.agent} diverged from the template: {divergence.text}"


def due(flow: Flow) -> Due | None:
    """The halt that the template requires in the current state of the flow, or None."""
    if not flow.goes_on:
        return None
    if flow.is_held:
        return _for_rule(flow)
    return _for_rule(flow) or _for_rejection(flow) or _for_failure(flow) or _for_divergence(flow) or _for_flood(flow)


def may_halt(flow: Flow, mode: HaltMode.ValueType) -> bool:
    """Whether a halt of this mode would change anything. After a hold any mode would, after an end only an undo."""
    if flow.closed:
        # A flow that is compensated, or cancelled with its effects undone, has nothing left to undo.
        return mode == HaltMode.HALT_MODE_COMPENSATE and not flow.is_undoing
    if flow.halt is None:
        return mode == HaltMode.HALT_MODE_COMPENSATE or not status.is_complete(flow)
    if flow.is_held or flow.halt.to_step:
        return mode != HaltMode.HALT_MODE_HOLD
    return mode in _UNDO and flow.halt.mode not in _UNDO


def apply_halted(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a halt by a person, or one that the template still requires."""
    halted = FlowHalted.FromString(recorded.event.data.value)
    if not _makes_sense(flow, halted):
        return Void("no such halt is possible in this flow")
    if not may_halt(flow, halted.mode):
        return Void("the flow is already halted, or over", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if not halted.by and not _for_size(halted):
        asked = due(flow)
        if asked is None or asked.mode != halted.mode:
            return Void("the reason for the halt has settled itself")
    flow.halt = Halt(
        halted.mode,
        halted.reason,
        halted.by,
        halted.to_step,
        halted.keep_effects,
        recorded,
        recorded.sequence if flow.halt is None else flow.halt.since,
        flow.sequence_of_step(halted.to_step) if halted.to_step else 0,
        frozenset(halted.run_again),
    )
    flow.closed = FlowStatus.FLOW_STATUS_UNSPECIFIED
    flow.closed_reason = ""
    flow.compensation_started = False
    if not flow.is_held:
        flow.pending_resolution = None
        approvals.withdraw(flow, list(flow.proposals))
    if not flow.goes_on and not halted.to_step:
        rules.settle_all(flow)
    return None


def apply_closed(flow: Flow, recorded: Recorded) -> Void | None:
    """Ends the flow by decision. Void if by the rules of the fold something is left to do."""
    closed = FlowClosed.FromString(recorded.event.data.value)
    if flow.closed or status.settled(flow) != closed.status:
        return Void("the flow is already over, or something is left to do")
    flow.closed = closed.status
    flow.closed_reason = closed.reason
    return None


def _for_size(halted: FlowHalted) -> bool:
    return halted.mode == HaltMode.HALT_MODE_HOLD and halted.reason.startswith(TOO_LARGE)


def _makes_sense(flow: Flow, halted: FlowHalted) -> bool:
    if halted.to_step and (halted.mode != HaltMode.HALT_MODE_COMPENSATE or not flow.sequence_of_step(halted.to_step)):
        return False
    if halted.keep_effects and halted.mode != HaltMode.HALT_MODE_CANCEL:
        return False
    if halted.by and halted.mode == HaltMode.HALT_MODE_HOLD:
        # A hold waits for the answer to a matter; without a matter it would wait forever.
        return False
    return halted.mode in HaltMode.values() and halted.mode != HaltMode.HALT_MODE_UNSPECIFIED


def _for_rule(flow: Flow) -> Due | None:
    trip = rules.outstanding(flow)
    if trip is None or not trip.recorded:
        return None
    mode = _OF_RULE[trip.then]
    return None if flow.is_held and mode == HaltMode.HALT_MODE_HOLD else Due(mode, rules.reason(trip))


def _for_rejection(flow: Flow) -> Due | None:
    for policy, mode in _OF_REJECTION.items():
        rejected = approvals.rejected_with(flow, policy)
        if rejected is not None:
            return Due(mode, f"{rejected.recorded.type} was refused")
    return None


def _for_failure(flow: Flow) -> Due | None:
    for run in flow.runs.values():
        if run.state is RunState.FAILED and run.step.on_failure in _OF_FAILURE:
            return Due(_OF_FAILURE[run.step.on_failure], run.failure)
    return None


def _for_divergence(flow: Flow) -> Due | None:
    divergence = flow.diverged
    return None if divergence is None else Due(HaltMode.HALT_MODE_HOLD, diverged(divergence))


def _for_flood(flow: Flow) -> Due | None:
    if flow.message_count < flow.message_limit or status.is_complete(flow):
        return None
    return Due(HaltMode.HALT_MODE_HOLD, flooded(flow))


def flooded(flow: Flow) -> str:
    """Why a flow with too many messages is held."""
    return f"the flow holds too many messages to go on: the limit is {flow.message_limit}"
