"""Converts facts into a handler's arguments, and its answer into messages that may be published. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from handrail.agents.attempt import Attempt
from handrail.agents.handler import Handler
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template import STEP_COMPLETED
from handrail.mesh.wire.envelope import Recorded, pack
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted


class UnfitInput(HandrailError):
    """A fact can't be passed to the handler: its bytes don't parse as its type, or it breaks its contract."""

    def __init__(self, recorded: Recorded, error: HandrailError) -> None:
        self.recorded = recorded
        super().__init__(error.reason, error.text)


def event_arguments(handler: Handler, inputs: Sequence[Recorded]) -> dict[str, object]:
    """Returns the handler's event arguments by parameter; raises UnfitInput if a fact can't be parsed."""
    if len(handler.parameters) == 1 and not handler.parameters[0].several:
        return {handler.parameters[0].name: _message(handler, inputs[0])}
    by_type: dict[str, list[Message]] = {}
    for recorded in inputs:
        by_type.setdefault(recorded.type, []).append(_message(handler, recorded))
    filled: dict[str, object] = {}
    for parameter in handler.parameters:
        names = [each.DESCRIPTOR.full_name for each in parameter.types]
        messages = [message for name in names for message in by_type.get(name, ())]
        filled[parameter.name] = messages if parameter.several else messages[0]
    return filled


def check_inputs(contracts: Contracts, inputs: Sequence[Recorded]) -> None:
    """Checks facts against the stored contracts; raises UnfitInput for the first that breaks its contract."""
    for recorded in inputs:
        try:
            contracts.validate(contracts.decode(recorded.event.data))
        except HandrailError as error:
            raise UnfitInput(recorded, error) from error


def outputs(attempt: Attempt, answer: Sequence[Message]) -> list[Any]:
    """Returns what an answer publishes, checked against template and stored contracts; StepCompleted if it is empty.

    Raises HandrailError: WRONG_AGENT for a type that the step does not emit, CONTRACT_VIOLATION for more messages than
    its `max_outputs`, ContractViolation with every field and rule, and UNKNOWN_MESSAGE_TYPE.
    """
    if not answer:
        return [_COMPLETED]
    if attempt.undo_of and len(answer) > 1:
        raise HandrailError(
            ErrorReason.ERROR_REASON_WRONG_AGENT, f"an undo must answer with one message, not {len(answer)}"
        )
    if not attempt.undo_of and not attempt.step.allows(len(answer)):
        raise HandrailError(
            ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
            f"the handler answered with {len(answer)} messages; step {attempt.step.name} of {attempt.template.name} "
            f"version {attempt.template.version} may answer with at most {attempt.step.max_outputs}",
        )
    packed = [pack(message) for message in answer]
    contracts = attempt.template.contracts
    for message, data in zip(answer, packed, strict=True):
        name = message.DESCRIPTOR.full_name
        if name not in attempt.emits and name != STEP_COMPLETED:
            raise HandrailError(
                ErrorReason.ERROR_REASON_WRONG_AGENT,
                f"the handler answered with {name}; step {attempt.step.name} of {attempt.template.name} version "
                f"{attempt.template.version} allows {', '.join(sorted(attempt.emits))}",
                type=name,
            )
        contracts.validate(contracts.decode(data))
    return packed


_COMPLETED = pack(StepCompleted())


def _message(handler: Handler, recorded: Recorded) -> Message:
    try:
        return handler.inputs[recorded.type].FromString(recorded.event.data.value)
    except DecodeError as error:
        problem = HandrailError(
            ErrorReason.ERROR_REASON_MALFORMED, f"its data can't be parsed as {recorded.type}: {error}"
        )
        raise UnfitInput(recorded, problem) from error
