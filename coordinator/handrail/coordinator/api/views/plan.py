"""What a compensation would do, before it starts."""

from __future__ import annotations

from handrail.coordinator.api.views.flows import effect_view, run_view
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import EffectState, Flow
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import PlanCompensationResponse

_UNDONE = (EffectState.UNDONE, EffectState.UNDONE_BY_HAND)


def compensation_plan(flow: Flow, to_step: str) -> PlanCompensationResponse:
    """Plans a flow's compensation, in full or back to a step; raises STEP_NOT_FOUND if that step has no fact."""
    floor = flow.sequence_of_step(to_step) if to_step else 0
    if to_step and not floor:
        raise HandrailError(
            ErrorReason.ERROR_REASON_STEP_NOT_FOUND,
            f'flow {flow.flow_id} has no fact of step "{to_step}" to go back to',
            step=to_step,
            flow_id=flow.flow_id,
        )
    effects = [effect for effect in flow.effects.values() if effect.recorded.sequence > floor]
    effects.sort(key=lambda effect: effect.recorded.sequence, reverse=True)
    return PlanCompensationResponse(
        undos=[effect_view(effect) for effect in effects if effect.stands],
        parallel=flow.template.parallel_undo,
        irreversible=[effect_view(effect) for effect in effects if effect.state is EffectState.IRREVERSIBLE],
        undone=[effect_view(effect) for effect in effects if effect.state in _UNDONE],
        unknown=[run_view(flow, run) for run in flow.open_outcomes()],
        etag=flow.etag,
        run_again=[effect_view(effect) for effect in flow.effects_that_stay(floor)] if to_step else [],
    )
