"""Calls handlers: waits for capacity, records late starts, and has the overseer watch them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from google.protobuf.message import Message

from handrail.agents import arguments
from handrail.agents.attempt import Attempt
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company
from handrail.agents.context import Context
from handrail.agents.errors import Busy, Stopping
from handrail.agents.handler import Handler
from handrail.agents.invoke import QuickRetries, invoke
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import HandlerEnded, Overseer, Running
from handrail.agents.threads import Threads
from handrail.mesh.bus import Delivery
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.telemetry import Span
from handrail.mesh.wire.envelope import Recorded

_logger = logging.getLogger(__name__)

PARTS = 4
"""A start is late after the timeout divided by this. An attempt waits equally long for capacity in a worker."""


@dataclass(slots=True)
class HandlerCall:
    """An attempt to make now. `sole` is set if it is the only one that its delivery asks for."""

    attempt: Attempt
    handler: Handler
    recorded: Recorded
    delivery: Delivery
    sole: bool


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
    ) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience
        self._outcomes = outcomes
        self._overseer = overseer
        self._retries = retries
        self._threads = threads
        self._company = Company()

    async def make(self, call: HandlerCall, span: Span) -> list[Message]:
        """Calls the handler and returns its answer.

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
        """Calls the handler, beside the others or alone.

        A late or repeated start is recorded before it happens, and the attempt's timeout runs from that record.
        """
        attempt, handler, delivery = call.attempt, call.handler, call.delivery
        if handler.validate_inbound:
            arguments.check_inputs(attempt.template.contracts, attempt.inputs)
        filled = arguments.event_arguments(handler, attempt.inputs)
        alone = attempt.starts.alone
        seat = await self._company.join(alone=alone) if alone or self._company.is_closed else self._company.sit()
        place, heartbeats = self._threads.place(), attempt.starts.counter

        def release() -> None:
            place.give_up()
            seat.leave()
            if call.sole:
                delivery.ack()

        try:
            if alone:
                _logger.warning(
                    "%s: started before without an outcome; it now runs alone", attempt.label, extra=attempt.log_fields
                )
            if not handler.asynchronous:
                await place.take(within=attempt.timeout / PARTS)
            now = self._clock.now()
            running = Running(
                attempt,
                now,
                release,
                at_least=delivery.sequence,
                name=handler.name,
                asynchronous=handler.asynchronous,
            )
            if attempt.on_record or now - call.recorded.time > attempt.timeout / PARTS:
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
            self._overseer.begin(running)
            try:
                return await invoke(
                    handler, filled, retries=self._retries, patience=self._patience, threads=self._threads, place=place
                )
            except asyncio.CancelledError:
                running.raise_if_ended()
                raise  # the worker stops
            finally:
                self._overseer.end(running)
        except (asyncio.CancelledError, Stopping, HandlerEnded):
            if heartbeats > attempt.starts.counter:
                await self._outcomes.handed_back(attempt, heartbeats)
            raise
        finally:
            place.give_up()
            seat.leave()
