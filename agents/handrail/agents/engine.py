"""Handles one delivery, from its bytes to its ack."""

from __future__ import annotations

import asyncio
import logging

from handrail.agents import arguments, redelivery
from handrail.agents.arguments import UnfitInput
from handrail.agents.attempt import Attempt
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.errors import Busy, HandlerFailed, NoHandler, Postponed, Stopping
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.handler import Handler
from handrail.agents.handler_calls import PARTS, HandlerCall, HandlerCalls
from handrail.agents.invoke import QuickRetries
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import HandlerEnded, Overseer
from handrail.agents.plan import Task
from handrail.agents.planner import Planner
from handrail.agents.threads import Threads
from handrail.mesh import telemetry
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Verdict, Void
from handrail.mesh.flow.starts import POISON
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire.envelope import Recorded, decode
from handrail.mesh.wire.subjects import Kind
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


class Engine:
    """Handles the deliveries of one agent, and acks or naks each."""

    def __init__(
        self,
        *,
        bindings: Bindings,
        bus: Bus,
        store: FlowStore,
        clock: Clock,
        patience: BrokerRetry,
        hints: HaltedFlows,
        retries: QuickRetries,
        threads: Threads,
    ) -> None:
        self._agent = bindings.agent
        self._bindings = bindings
        self._quarantine = Quarantine(bus, store.catalog, reporter=bindings.agent)
        self._clock = clock
        self._patience = patience
        self._outcomes = Outcomes(bus, store=store, clock=clock, patience=patience)
        self._planner = Planner(bindings, store=store, clock=clock, patience=patience, hints=hints)
        self.overseer = Overseer(store, clock)
        self._calls = HandlerCalls(
            store=store,
            clock=clock,
            patience=patience,
            outcomes=self._outcomes,
            overseer=self.overseer,
            retries=retries,
            threads=threads,
        )

    def reconnected(self) -> None:
        """Notes that the connection to the broker was lost for a while."""
        self._planner.forget_flows()

    async def handle(self, delivery: Delivery) -> None:
        """Handles a delivery, then acks it; hands it back if this worker can't handle it now."""
        try:
            await self._handle(delivery)
        except asyncio.CancelledError:
            delivery.nak()
            raise
        except Stopping:
            delivery.nak()
        except Postponed as postponed:
            delay = redelivery.delay_after(postponed, delivery.delivered)
            level = logging.INFO if isinstance(postponed, Busy) else logging.WARNING
            _logger.log(level, "%s; handed back for %g s", postponed, delay.total_seconds())
            delivery.nak(delay)
        except Exception:
            # A bug in the SDK or below: the message is kept, and the bug is logged.
            delay = redelivery.delay(delivery.delivered)
            _logger.exception("%s: unexpected error; handed back for %g s", delivery.subject, delay.total_seconds())
            delivery.nak(delay)
        else:
            delivery.ack()

    async def _handle(self, delivery: Delivery) -> None:
        try:
            recorded = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        except HandrailError as error:
            await self._put_away(delivery, error.reason, error.text)
            return
        planned = await self._planner.plan(recorded, delivered=delivery.delivered)
        if planned.void is not None:
            await self._drop(recorded, delivery, planned.void)
        elif len(planned.tasks) == 1:
            await self._perform(planned.tasks[0], recorded, delivery, sole=True)
        elif planned.tasks:
            performing = (self._perform(task, recorded, delivery, sole=False) for task in planned.tasks)
            for outcome in await asyncio.gather(*performing, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _perform(self, task: Task, recorded: Recorded, delivery: Delivery, *, sole: bool) -> None:
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
                await self._run(HandlerCall(attempt, handler, recorded, delivery, sole))

    async def _leave_to_others(self, attempt: Attempt, unfit: NoHandler) -> None:
        """This worker can't begin the attempt. Reports that it waits before it times out, and hands it back briefly."""
        unfit.at_most = attempt.timeout / PARTS
        if attempt.deadline - self._clock.now() < attempt.timeout / 2:
            await self._outcomes.waiting(attempt)

    async def _run(self, call: HandlerCall) -> None:
        attempt = call.attempt
        with telemetry.span(
            "handle",
            flow_id=attempt.flow_id,
            # A command has no span if the coordinator records none; then the parent is the trigger's span.
            parent=call.recorded.event.span_id or attempt.inputs[0].event.span_id,
            agent=self._agent,
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

    async def _drop(self, recorded: Recorded, delivery: Delivery, void: Void) -> None:
        # A late vote is void but breaks no contract.
        if void.reason and recorded.kind is not Kind.DECISION:
            await self._put_away(delivery, void.reason, void.text)
        else:
            _logger.info(
                "flow %s: %s %s does not count: %s",
                recorded.address.flow_id,
                recorded.kind.value,
                recorded.event_id,
                void.text,
                extra={"flow_id": recorded.address.flow_id},
            )

    async def _put_away(self, delivery: Delivery, reason: ErrorReason.ValueType, detail: str) -> None:
        await self._patience.insist(
            lambda: self._quarantine.put(
                subject=delivery.subject, body=delivery.body, sequence=delivery.sequence, reason=reason, detail=detail
            )
        )

    def _handler(self, attempt: Attempt) -> Handler:
        bound = self._bindings.of(attempt.template)
        message_type = attempt.inputs[0].type
        find = bound.undo if attempt.undo_of else bound.handler
        handler = find(attempt.step, message_type)
        if handler is None:
            version = attempt.template.version
            raise NoHandler(f"{attempt.label}: no handler here for {message_type} fits version {version}")
        return handler
