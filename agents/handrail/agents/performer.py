"""Performs the tasks of a plan: calls the handler, and publishes what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from google.protobuf.message import Message

from handrail.agents import arguments
from handrail.agents.arguments import UnfitInput
from handrail.agents.attempt import Attempt
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.errors import HandlerFailed, NoHandler
from handrail.agents.handler import Handler
from handrail.agents.handler_calls import PARTS, HandlerCall, HandlerCalls, Held
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import HandlerEnded
from handrail.agents.plan import Task
from handrail.mesh import telemetry
from handrail.mesh.bus import Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Verdict
from handrail.mesh.flow.starts import POISON
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

_POISON_TEXT = "its handler was started repeatedly, at last alone, and never finished: it may kill its process"

_BAD_ANSWER = (
    ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
    ErrorReason.ERROR_REASON_MALFORMED,
    ErrorReason.ERROR_REASON_TOO_LARGE,
    ErrorReason.ERROR_REASON_UNKNOWN_MESSAGE_TYPE,
    ErrorReason.ERROR_REASON_WRONG_AGENT,
)
"""Errors of the answer itself. All others come from the broker and are temporary."""


class Performer:
    """Performs the tasks of one agent."""

    def __init__(
        self,
        bindings: Bindings,
        *,
        calls: HandlerCalls,
        outcomes: Outcomes,
        quarantine: Quarantine,
        clock: Clock,
        patience: BrokerRetry,
    ) -> None:
        self._bindings = bindings
        self._calls = calls
        self._outcomes = outcomes
        self._quarantine = quarantine
        self._clock = clock
        self._patience = patience

    def begin(self, task: Task, recorded: Recorded, delivery: Delivery) -> HandlerCall | None:
        """Calls the handler of the only task of a delivery, up to its first wait; None if that itself has to wait."""
        attempt = task.attempt
        if task.verdict is not Verdict.RUN or attempt.starts.is_poison or telemetry.is_recording():
            return None
        handler = self._find(attempt)
        if handler is None or not self._calls.probably_answers_at_once(handler):
            return None
        call = HandlerCall(attempt, handler, recorded, delivery, Held(delivery))
        return call if self._calls.begin(call) else None

    def answer(self, call: HandlerCall, on_stored: Callable[[bool], None]) -> bool:
        """Sends the answer of a handler that has ended without a wait; tells whether it did.

        It does not if the answer is several messages, a bad one, or late. `on_stored` is called once, later: False
        if the broker did not store the answer. In both cases `perform` goes on.
        """
        begun = call.begun
        if begun is None or not begun.has_answered or not isinstance(begun.answer, Message | None):
            return False
        if self._outcomes.is_late(call.attempt):
            return False
        try:
            [data] = arguments.outputs(call.attempt, [] if begun.answer is None else [begun.answer])
        except HandrailError:
            return False
        self._outcomes.send(call.attempt, data, single_type=call.handler.single_answer, on_stored=on_stored)
        return True

    async def perform(self, task: Task, recorded: Recorded, delivery: Delivery, *, sole: bool) -> None:
        """Does what the task says. `sole` is set if it is the only one that its delivery asks for.

        Raises Postponed if this worker can't perform it now, Stopping if it stops, and the errors of publishing.
        """
        attempt = task.attempt
        if task.verdict is Verdict.DROP:
            _logger.info("%s: dropped, the flow no longer waits for it", attempt.label, extra=attempt.log_fields)
        elif task.verdict is Verdict.ANSWER_NOT_STARTED:
            await self._outcomes.not_started(attempt, "the flow is halted")
        else:
            try:
                handler = self._handler(attempt)
            except NoHandler as unfit:
                await self._leave_to_others(attempt, unfit)
                raise
            if attempt.starts.is_poison:
                await self._outcomes.failed(
                    attempt, POISON, _POISON_TEXT, retryable=True, outcome_unknown=attempt.may_have_effect
                )
            else:
                await self.go_on(HandlerCall(attempt, handler, recorded, delivery, Held(delivery if sole else None)))

    async def _leave_to_others(self, attempt: Attempt, unfit: NoHandler) -> None:
        """This worker can't begin the attempt. Reports that it waits before it times out, and hands it back briefly."""
        unfit.at_most = attempt.timeout / PARTS
        if attempt.deadline - self._clock.now() < attempt.timeout / 2:
            await self._outcomes.waiting(attempt)

    async def go_on(self, call: HandlerCall) -> None:
        """Makes a call, or goes on with one that was begun, and publishes what comes of it."""
        attempt = call.attempt
        with telemetry.span(
            "handle",
            flow_id=attempt.flow_id,
            # A command has no span if the coordinator records none; then the parent is the trigger's span.
            parent=call.recorded.event.span_id or attempt.inputs[0].event.span_id,
            agent=attempt.step.agent,
            step=attempt.step.name,
            message_type=call.recorded.type,
            attempt=attempt.attempt,
        ) as span:
            parent = span.span_id
            try:
                answer = await self._calls.make(call, span)
            except HandlerEnded as ended:
                span.fail(ended.why)
                if ended.halted:
                    await self._outcomes.not_started(attempt, ended.why)
                else:
                    _logger.warning("%s: %s", attempt.label, ended.why, extra=attempt.log_fields)
                return
            except UnfitInput as unfit:
                await self._refuse(attempt, unfit, call.delivery, parent)
                return
            except HandlerFailed as failed:
                span.fail(f"{failed.error_class}: {failed.text}")
                await self._outcomes.failed(
                    attempt,
                    failed.error_class,
                    failed.text,
                    retryable=failed.retryable,
                    outcome_unknown=failed.outcome_unknown and attempt.may_have_effect,
                    parent=parent,
                    error=failed.raised if failed.retryable else None,
                )
                return
        try:
            outputs = arguments.outputs(attempt, answer)
            await self._outcomes.answer(attempt, outputs, single_type=call.handler.single_answer, parent=parent)
        except HandrailError as error:
            if error.reason not in _BAD_ANSWER:
                raise
            await self._outcomes.failed(
                attempt,
                error.reason_name,
                error.text,
                retryable=False,
                outcome_unknown=attempt.may_have_effect,
                parent=parent,
            )

    async def _refuse(self, attempt: Attempt, unfit: UnfitInput, delivery: Delivery, parent: str) -> None:
        """Quarantines an input that breaks its contract, and reports that the step failed because of it."""
        broken = unfit.recorded
        body = delivery.body if broken.sequence == delivery.sequence else broken.event.SerializeToString()
        text = f"its input {broken.type} (event {broken.event_id}) is quarantined: {unfit.text}"
        await self._patience.insist(
            lambda: self._quarantine.put(
                subject=broken.address.subject,
                body=body,
                sequence=broken.sequence,
                reason=unfit.reason,
                detail=unfit.text,
            )
        )
        await self._outcomes.failed(attempt, unfit.reason_name, text, retryable=False, parent=parent)

    def _handler(self, attempt: Attempt) -> Handler:
        handler = self._find(attempt)
        if handler is None:
            version, message_type = attempt.template.version, attempt.inputs[0].type
            raise NoHandler(f"{attempt.label}: no handler here for {message_type} fits version {version}")
        return handler

    def _find(self, attempt: Attempt) -> Handler | None:
        bound = self._bindings.of(attempt.template)
        find = bound.undo if attempt.undo_of else bound.handler
        return find(attempt.step, attempt.inputs[0].type)
