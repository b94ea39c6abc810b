"""Handles one delivery, from its bytes to its ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from handrail.agents import redelivery
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company
from handrail.agents.errors import Busy, Postponed, Stopping
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.handler_calls import HandlerCall, HandlerCalls
from handrail.agents.invoke import QuickRetries
from handrail.agents.outcomes import Outcomes
from handrail.agents.overseer import Overseer
from handrail.agents.performer import Performer
from handrail.agents.plan import Plan
from handrail.agents.planner import Planner
from handrail.agents.threads import Threads
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Void
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire.envelope import Recorded, decode
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Prepared:
    """What is known about a delivery without a wait: its message, its plan, and the call that has begun."""

    recorded: Recorded | None = None
    plan: Plan | None = None
    call: HandlerCall | None = None


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
        company: Company,
    ) -> None:
        self._quarantine = Quarantine(bus, store.catalog, reporter=bindings.agent)
        self._patience = patience
        self._planner = Planner(bindings, store=store, clock=clock, patience=patience, hints=hints)
        self.overseer = Overseer(store, clock)
        outcomes = Outcomes(bus, store=store, quarantine=self._quarantine, clock=clock, patience=patience)
        calls = HandlerCalls(
            store=store,
            clock=clock,
            patience=patience,
            outcomes=outcomes,
            overseer=self.overseer,
            retries=retries,
            threads=threads,
            company=company,
        )
        self._performer = Performer(
            bindings,
            calls=calls,
            outcomes=outcomes,
            quarantine=self._quarantine,
            clock=clock,
            patience=patience,
        )

    def reconnected(self) -> None:
        """Notes that the connection to the broker was lost for a while."""
        self._planner.forget_flows()

    def begin(self, delivery: Delivery, go_on: Callable[[Prepared | None], None]) -> Prepared | None:
        """Handles a delivery as far as that needs no wait. Call it within a task: a handler runs in it.

        Returns what it has prepared for `handle`, to be called in the same task. None: only the broker's answer is
        missing. Then `go_on` is called once, with None after the ack, or with what is prepared for `handle`.
        """
        prepared = Prepared()
        try:
            return None if self._begin(delivery, prepared, go_on) else prepared
        except Exception:
            return prepared  # `handle` meets the same error, and reports it

    async def handle(self, delivery: Delivery, prepared: Prepared | None = None) -> None:
        """Handles a delivery, then acks it; hands it back if this worker can't handle it now."""
        try:
            await self._handle(delivery, prepared or Prepared())
        except asyncio.CancelledError:
            delivery.nak()
            raise
        except Stopping:
            delivery.nak()
        except Postponed as postponed:
            delay = redelivery.delay_after(postponed, delivery.delivered)
            level = logging.INFO if isinstance(postponed, Busy) else logging.WARNING
            _logger.log(level, "%s; handed back for %g s", postponed, round(delay.total_seconds(), 2))
            delivery.nak(delay)
        except Exception as error:
            if isinstance(error, HandrailError) and error.reason == ErrorReason.ERROR_REASON_FLOW_ARCHIVED:
                _logger.warning("%s: nothing is published: %s", delivery.subject, error.text)
                delivery.ack()
                return
            # A bug in the SDK or below: the message is kept, and the bug is logged.
            delay = redelivery.delay(delivery.delivered)
            _logger.exception("%s: unexpected error; handed back for %g s", delivery.subject, delay.total_seconds())
            delivery.nak(delay)
        else:
            delivery.ack()

    def _begin(self, delivery: Delivery, prepared: Prepared, go_on: Callable[[Prepared | None], None]) -> bool:
        prepared.recorded = recorded = _decode(delivery)
        prepared.plan = plan = self._planner.at_once(recorded, delivered=delivery.delivered)
        if plan is None or len(plan.tasks) != 1:
            return False
        prepared.call = call = self._performer.begin(plan.tasks[0], recorded, delivery)

        def on_stored(is_stored: bool) -> None:
            if is_stored:
                delivery.ack()
            go_on(None if is_stored else prepared)

        return call is not None and self._performer.answer(call, on_stored)

    async def _handle(self, delivery: Delivery, prepared: Prepared) -> None:
        if prepared.call is not None:
            await self._performer.go_on(prepared.call)
            return
        try:
            recorded = prepared.recorded or _decode(delivery)
        except HandrailError as error:
            await self._put_away(delivery, error.reason, error.text)
            return
        planned = prepared.plan or await self._planner.plan(recorded, delivered=delivery.delivered)
        perform = self._performer.perform
        if planned.void is not None:
            await self._drop(recorded, delivery, planned.void)
        elif len(planned.tasks) == 1:
            await perform(planned.tasks[0], recorded, delivery, sole=True)
        elif planned.tasks:
            performing = (perform(task, recorded, delivery, sole=False) for task in planned.tasks)
            for outcome in await asyncio.gather(*performing, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

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


def _decode(delivery: Delivery) -> Recorded:
    return decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
