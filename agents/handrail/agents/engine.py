"""One delivery, from its bytes to its ack."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.agents import arguments
from handrail.agents.arguments import UnfitInput
from handrail.agents.attempt import Attempt
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company
from handrail.agents.context import Context
from handrail.agents.errors import Busy, HandlerFailed, NoHandler, Postponed, Stopping
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.handler import Handler
from handrail.agents.invoke import QuickRetries, invoke
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import HandlerEnded, Overseer, Running
from handrail.agents.plan import Task
from handrail.agents.planner import Planner
from handrail.agents.threads import Threads
from handrail.mesh import telemetry
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Verdict, Void
from handrail.mesh.flow.starts import POISON
from handrail.mesh.streams import quarantine
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.telemetry import Span
from handrail.mesh.wire.envelope import Recorded, decode
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import EFFECT_NONE

_logger = logging.getLogger(__name__)

_LONGEST_DELAY = timedelta(minutes=5)
_BUSY_DELAY = timedelta(seconds=1)
_QUICK_DELAY, _QUICK = timedelta(milliseconds=250), 6

_PARTS = 4
"""An attempt begins late after one part in so many of its time, and waits as long for room in a worker."""

_POISON_TEXT = "its handler was begun again and again, at last alone, and came to no end: it may kill its process"

_BAD_ANSWER = (
    ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
    ErrorReason.ERROR_REASON_MALFORMED,
    ErrorReason.ERROR_REASON_TOO_LARGE,
    ErrorReason.ERROR_REASON_UNKNOWN_MESSAGE_TYPE,
    ErrorReason.ERROR_REASON_WRONG_AGENT,
)
"""What is wrong with an answer itself; anything else is the broker's, and passes."""


@dataclass(slots=True)
class _Work:
    """An attempt to make now. `sole` where its delivery asks for nothing else."""

    attempt: Attempt
    handler: Handler
    recorded: Recorded
    delivery: Delivery
    sole: bool


class Engine:
    """Handles the deliveries of one agent and settles each."""

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
        self._bus = bus
        self._store = store
        self._clock = clock
        self._patience = patience
        self._outcomes = Outcomes(bus, store=store, clock=clock, patience=patience)
        self._planner = Planner(bindings, store=store, clock=clock, patience=patience, hints=hints)
        self._retries = retries
        self._threads = threads
        self._company = Company()
        self.overseer = Overseer(store, clock)

    async def handle(self, delivery: Delivery) -> None:
        """Do what a delivery asks for, then ack it; hand it back where that can't be done here or now."""
        try:
            await self._handle(delivery)
        except asyncio.CancelledError:
            delivery.nak()
            raise
        except Stopping:
            delivery.nak()
        except Postponed as postponed:
            delay = _delay_after(postponed, delivery.delivered)
            level = logging.INFO if isinstance(postponed, Busy) else logging.WARNING
            _logger.log(level, "%s; handed back for %g s", postponed, delay.total_seconds())
            delivery.nak(delay)
        except Exception:
            # A fault of the SDK, or of what it stands on: the message is kept, and the fault is seen.
            delay = _delay(delivery.delivered)
            _logger.exception("%s: unexpected; handed back for %g s", delivery.subject, delay.total_seconds())
            delivery.nak(delay)
        else:
            delivery.ack()

    async def _handle(self, delivery: Delivery) -> None:
        try:
            recorded = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        except HandrailError as error:
            await self._quarantine(delivery, error.reason, error.text)
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
            _logger.info("%s: dropped, the flow no longer waits for it", attempt.label, extra=_about(attempt))
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
                    attempt, POISON, _POISON_TEXT, retryable=True, outcome_unknown=_unknown(attempt)
                )
            else:
                await self._run(_Work(attempt, handler, recorded, delivery, sole))

    async def _leave_to_others(self, attempt: Attempt, unfit: NoHandler) -> None:
        """Workers of this kind don't begin it: say so before its time is up, and hand it back for no longer."""
        unfit.at_most = attempt.timeout / _PARTS
        if attempt.deadline - self._clock.now() < attempt.timeout / 2:
            await self._outcomes.waiting(attempt)

    async def _run(self, work: _Work) -> None:
        attempt = work.attempt
        with telemetry.span(
            "handle",
            flow_id=attempt.flow_id,
            # A command carries no span where the coordinator records none: then it is the trigger's.
            parent=work.recorded.event.span_id or attempt.inputs[0].event.span_id,
            agent=self._agent,
            step=attempt.step.name,
            message_type=work.recorded.type,
            attempt=attempt.attempt,
        ) as span:
            parent = span.span_id
            try:
                answer = await self._begin(work, span)
            except HandlerEnded as ended:
                span.fail(ended.why)
                if ended.halted:
                    await self._outcomes.not_started(attempt, ended.why)
                else:
                    _logger.warning("%s: %s", attempt.label, ended.why, extra=_about(attempt))
                return
            except UnfitInput as unfit:
                await self._refuse(attempt, unfit, work.delivery, parent)
                return
            except HandlerFailed as failed:
                span.fail(f"{failed.error_class}: {failed.text}")
                await self._outcomes.failed(
                    attempt,
                    failed.error_class,
                    failed.text,
                    retryable=failed.retryable,
                    outcome_unknown=failed.outcome_unknown and _unknown(attempt),
                    parent=parent,
                    error=failed.raised if failed.retryable else None,
                )
                return
        try:
            outputs = arguments.outputs(attempt, answer)
            await self._outcomes.answer(attempt, outputs, single_type=work.handler.single_answer, parent=parent)
        except HandrailError as error:
            if error.reason not in _BAD_ANSWER:
                raise
            await self._outcomes.failed(
                attempt,
                error.reason_name,
                error.text,
                retryable=False,
                outcome_unknown=_unknown(attempt),
                parent=parent,
            )

    async def _begin(self, work: _Work, span: Span) -> list[Message]:
        """Call the handler where there is room for it; where there is none for long, say that it is not begun."""
        try:
            return await self._call(work, span)
        except Busy as busy:
            await self._outcomes.waiting(work.attempt)
            busy.at_most = work.attempt.timeout / _PARTS
            raise

    async def _call(self, work: _Work, span: Span) -> list[Message]:
        """Call the handler, beside the others or alone.

        A start that is late, or not the first, is recorded before it happens: the attempt's time runs from there.
        """
        attempt, handler, delivery = work.attempt, work.handler, work.delivery
        if handler.validate_inbound:
            arguments.check_inputs(attempt.template.contracts, attempt.inputs)
        filled = arguments.event_arguments(handler, attempt.inputs)
        alone = attempt.starts.alone
        seat = await self._company.join(alone=alone) if alone or self._company.is_closed else self._company.sit()
        place, heartbeats = self._threads.place(), attempt.starts.counter

        def release() -> None:
            place.give_up()
            seat.leave()
            if work.sole:
                delivery.ack()

        try:
            if alone:
                _logger.warning(
                    "%s: begun before and not heard of again; now it runs alone", attempt.label, extra=_about(attempt)
                )
            if not handler.asynchronous:
                await place.take(within=attempt.timeout / _PARTS)
            now = self._clock.now()
            running = Running(
                attempt,
                now,
                release,
                at_least=delivery.sequence,
                name=handler.name,
                asynchronous=handler.asynchronous,
            )
            if attempt.on_record or now - work.recorded.time > attempt.timeout / _PARTS:
                heartbeats = await self._outcomes.began(attempt)
                running.deadline = self._clock.now() + attempt.timeout
            if handler.context_name:
                filled[handler.context_name] = Context(
                    running,
                    delivery,
                    store=self._store,
                    clock=self._clock,
                    outcomes=self._outcomes,
                    span=span,
                    heartbeats=heartbeats,
                )
            self.overseer.begin(running)
            try:
                return await invoke(
                    handler, filled, retries=self._retries, patience=self._patience, threads=self._threads, place=place
                )
            except asyncio.CancelledError:
                running.raise_if_ended()
                raise  # the worker stops
            finally:
                self.overseer.end(running)
        except (asyncio.CancelledError, Stopping, HandlerEnded):
            if heartbeats > attempt.starts.counter:
                await self._outcomes.handed_back(attempt, heartbeats)
            raise
        finally:
            place.give_up()
            seat.leave()

    async def _refuse(self, attempt: Attempt, unfit: UnfitInput, delivery: Delivery, parent: str) -> None:
        """An input breaks its contract: keep it apart, and say that the step fails for it, so that it is not silent."""
        broken = unfit.recorded
        body = delivery.body if broken.sequence == delivery.sequence else broken.event.SerializeToString()
        text = f"its input {broken.type} (event {broken.event_id}) is quarantined: {unfit.text}"
        await self._patience.insist(
            lambda: quarantine.put(
                self._bus,
                subject=broken.address.subject,
                body=body,
                sequence=broken.sequence,
                reason=unfit.reason,
                detail=unfit.text,
                reporter=self._agent,
            )
        )
        await self._outcomes.failed(attempt, unfit.reason_name, text, retryable=False, parent=parent)

    async def _drop(self, recorded: Recorded, delivery: Delivery, void: Void) -> None:
        # A vote that came too late is void, and breaks no contract.
        if void.reason and recorded.kind is not Kind.DECISION:
            await self._quarantine(delivery, void.reason, void.text)
        else:
            _logger.info(
                "flow %s: %s %s does not count: %s",
                recorded.address.flow_id,
                recorded.kind.value,
                recorded.event_id,
                void.text,
                extra={"flow_id": recorded.address.flow_id},
            )

    async def _quarantine(self, delivery: Delivery, reason: ErrorReason.ValueType, detail: str) -> None:
        await self._patience.insist(
            lambda: quarantine.put(
                self._bus,
                subject=delivery.subject,
                body=delivery.body,
                sequence=delivery.sequence,
                reason=reason,
                detail=detail,
                reporter=self._agent,
            )
        )

    def _handler(self, attempt: Attempt) -> Handler:
        bound = self._bindings.of(attempt.template)
        message_type = attempt.inputs[0].type
        if attempt.undo_of:
            handler = bound.undo(attempt.step, message_type)
        else:
            handler = bound.handler(attempt.step, message_type)
        if handler is None:
            version = attempt.template.version
            raise NoHandler(f"{attempt.label}: this worker handles no {message_type} in the way of version {version}")
        return handler


def _delay(delivered: int) -> timedelta:
    """How long a delivery is handed back for: a second, then four times as long each time."""
    return min(timedelta(seconds=4 ** min(delivered - 1, 8)), _LONGEST_DELAY)


def _delay_for_others(delivered: int) -> timedelta:
    """The same where a worker of another kind may run beside: soon at first, as that one may get it the next time."""
    doublings = min(max(delivered - _QUICK, 0), 20)
    return min(_QUICK_DELAY * (1 << doublings), _LONGEST_DELAY)


def _delay_after(postponed: Postponed, delivered: int) -> timedelta:
    match postponed:
        case Busy():
            return min(_BUSY_DELAY, postponed.at_most)
        case NoHandler():
            return min(_delay_for_others(delivered), postponed.at_most)
        case _:
            return _delay(delivered)


def _unknown(attempt: Attempt) -> bool:
    return not attempt.undo_of and attempt.step.effect != EFFECT_NONE


def _about(attempt: Attempt) -> dict[str, str]:
    return {"flow_id": attempt.flow_id, "step": attempt.step.name}
