"""Calls handlers: waits for capacity, records late starts, and has the overseer watch them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime
from types import CoroutineType

from google.protobuf.message import Message

from handrail.agents import arguments
from handrail.agents.arguments import UnfitInput
from handrail.agents.attempt import Attempt
from handrail.agents.begun_call import BegunCall
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company, Seat
from handrail.agents.context import Context
from handrail.agents.errors import Busy, Stopping
from handrail.agents.handler import Handler
from handrail.agents.invoke import QuickRetries, invoke
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import HandlerEnded, Overseer, Running
from handrail.agents.threads import Place, Threads
from handrail.mesh.bus import Delivery
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.telemetry import NO_SPAN, Span
from handrail.mesh.wire.envelope import Recorded

_logger = logging.getLogger(__name__)

PARTS = 4
"""A start is late after the timeout divided by this. An attempt waits equally long for capacity in a worker."""


_CALLS = 50
"""So many calls of a handler that had to wait are made in their own tasks from the beginning, which costs less then."""


@dataclass(slots=True)
class Held:
    """What a call holds of the worker. `delivery` is set if its handler is the only one that the delivery asks for."""

    delivery: Delivery | None
    seat: Seat | None = None
    place: Place | None = None

    def leave(self) -> None:
        """Frees seat and place; a second call does nothing."""
        if self.place is not None:
            self.place.give_up()
        if self.seat is not None:
            self.seat.leave()

    def release(self) -> None:
        """Frees all of it while the handler still runs."""
        self.leave()
        if self.delivery is not None:
            self.delivery.ack()


@dataclass(slots=True)
class HandlerCall:
    """An attempt to make now.

    `running` is set once the handler has its arguments, `begun` if it was called already. No object here refers back to
    the call: a cycle for each delivery would keep it in memory until the next garbage collection.
    """

    attempt: Attempt
    handler: Handler
    recorded: Recorded
    delivery: Delivery
    held: Held
    arguments: dict[str, object] = field(default_factory=dict)
    heartbeats: int = 0
    running: Running | None = None
    begun: BegunCall | None = None


class HandlerCalls:
    """Calls the handlers of one worker."""

    def __init__(
        self,
        *,
        store: FlowStore,
        clock: Clock,
        patience: BrokerRetry,
        outcomes: Outcomes,
        overseer: Overseer,
        retries: QuickRetries,
        threads: Threads,
        company: Company,
    ) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience
        self._outcomes = outcomes
        self._overseer = overseer
        self._retries = retries
        self._threads = threads
        self._company = company
        self._expect_waits: dict[str, int] = {}

    def probably_answers_at_once(self, handler: Handler) -> bool:
        """Tells whether it pays to `begin` calls of a handler: not for a while after one that had to wait."""
        calls = self._expect_waits.get(handler.name, 0)
        if calls:
            self._expect_waits[handler.name] = calls - 1
        return handler.asynchronous and not calls

    def begin(self, call: HandlerCall) -> bool:
        """Calls an async handler and runs it up to its first wait. Tells whether it did so.

        It does not if the call itself has to wait: for a place, or for a record of its start.
        """
        attempt, handler = call.attempt, call.handler
        now = self._clock.now()
        if (
            handler.validate_inbound
            or self._company.is_closed
            or attempt.on_record
            or now - call.recorded.time > attempt.timeout / PARTS
        ):
            return False
        try:
            call.arguments = arguments.event_arguments(handler, attempt.inputs)
        except UnfitInput:
            return False
        self._introduce(call, now, NO_SPAN)
        coroutine = handler.function(**call.arguments)
        if not isinstance(coroutine, CoroutineType):
            return False
        call.begun = BegunCall(coroutine)
        if not call.begun.is_over:
            self._expect_waits[handler.name] = _CALLS
        return True

    async def make(self, call: HandlerCall, span: Span) -> list[Message]:
        """Calls the handler, or goes on with its begun call, and returns its answer.

        Without capacity for too long, it reports that the attempt waits, and raises Busy. Raises UnfitInput,
        HandlerFailed, HandlerEnded, and Stopping if the worker stops.
        """
        try:
            return await self._call(call, span)
        except Busy as busy:
            await self._outcomes.waiting(call.attempt)
            busy.at_most = call.attempt.timeout / PARTS
            raise

    async def _call(self, call: HandlerCall, span: Span) -> list[Message]:
        attempt = call.attempt
        try:
            if call.begun is None:
                await self._start(call, span)
            else:
                call.held.seat = self._company.sit()
            running = call.running
            assert running is not None
            self._overseer.begin(running)
            try:
                return await invoke(
                    call.handler,
                    call.arguments,
                    retries=self._retries,
                    patience=self._patience,
                    threads=self._threads,
                    place=call.held.place,
                    begun=call.begun,
                )
            except asyncio.CancelledError:
                running.raise_if_ended()
                raise  # the worker stops
            finally:
                self._overseer.end(running)
        except (asyncio.CancelledError, Stopping, HandlerEnded):
            if call.heartbeats > attempt.starts.counter:
                await self._outcomes.handed_back(attempt, call.heartbeats)
            raise
        finally:
            call.held.leave()

    async def _start(self, call: HandlerCall, span: Span) -> None:
        """Waits until the handler may run, beside the others or alone.

        A late or repeated start is recorded before it happens, and the attempt's timeout runs from that record.
        """
        attempt, handler = call.attempt, call.handler
        if handler.validate_inbound:
            arguments.check_inputs(attempt.template.contracts, attempt.inputs)
        call.arguments = arguments.event_arguments(handler, attempt.inputs)
        call.heartbeats, alone = attempt.starts.counter, attempt.starts.alone
        crowded = alone or self._company.is_closed
        call.held.seat = await self._company.join(alone=alone) if crowded else self._company.sit()
        if alone:
            _logger.warning(
                "%s: started before without an outcome; it now runs alone", attempt.label, extra=attempt.log_fields
            )
        if not handler.asynchronous:
            call.held.place = self._threads.place()
            await call.held.place.take(within=attempt.timeout / PARTS)
        now = self._clock.now()
        deadline = attempt.deadline
        if attempt.on_record or now - call.recorded.time > attempt.timeout / PARTS:
            call.heartbeats = await self._outcomes.began(attempt)
            deadline = self._clock.now() + attempt.timeout
        self._introduce(call, now, span).deadline = deadline

    def _introduce(self, call: HandlerCall, now: datetime, span: Span) -> Running:
        """Makes what the overseer knows of the call, and the handler's context if it takes one."""
        handler, delivery = call.handler, call.delivery
        call.running = running = Running(
            call.attempt,
            now,
            call.held.release,
            at_least=delivery.sequence,
            name=handler.name,
            asynchronous=handler.asynchronous,
        )
        if handler.context_name:
            call.arguments[handler.context_name] = Context(
                running,
                delivery,
                store=self._store,
                clock=self._clock,
                outcomes=self._outcomes,
                span=span,
                heartbeats=call.heartbeats,
            )
        return running
