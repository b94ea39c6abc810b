"""The context that a handler gets besides its event."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from handrail.agents.broker_retry import PASSES
from handrail.mesh.flow import Flow
from handrail.mesh.telemetry import Span

if TYPE_CHECKING:
    from handrail.agents.clock import Clock
    from handrail.agents.outcomes import Outcomes
    from handrail.agents.overseer import Running
    from handrail.mesh.bus import Delivery
    from handrail.mesh.streams.flow_store import FlowStore

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_logger = logging.getLogger("handrail.agent")


class Context:
    """One attempt, as its handler sees it."""

    __slots__ = (
        *("_attempt", "_clock", "_counter", "_delivery", "_last_heartbeat", "_logger", "_loop", "_outcomes"),
        *("_running", "_store", "_thread"),
        "span",
    )

    def __init__(
        self,
        running: Running,
        delivery: Delivery,
        *,
        store: FlowStore,
        clock: Clock,
        outcomes: Outcomes,
        span: Span,
        heartbeats: int,
    ) -> None:
        self._attempt = running.attempt
        self._running = running
        self._delivery = delivery
        self._store = store
        self._clock = clock
        self._outcomes = outcomes
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._counter = heartbeats
        self._last_heartbeat: datetime | None = None
        self._logger: FlowLogger | None = None
        self.span = span
        """The span of this attempt: `ctx.span.set("customer", 7)`. Free of cost while no trace is recorded."""

    @property
    def flow_id(self) -> str:
        """The id of the flow, which is also the id of its trace."""
        return self._attempt.flow_id

    @property
    def flow_type(self) -> str:
        """The name of the flow's template."""
        return self._attempt.template.name

    @property
    def template_version(self) -> int:
        """The version of the template that the flow is pinned to."""
        return self._attempt.template.version

    @property
    def step(self) -> str:
        """The running step; for an undo, the step that caused the effect."""
        return self._attempt.step.name

    @property
    def attempt(self) -> int:
        """The number of this attempt at the run or undo, from 1. Redeliveries of the same attempt don't count."""
        return self._attempt.attempt

    @property
    def idempotency_key(self) -> str:
        """Guards the effect: the key is the same for every attempt and redelivery of this work; an undo has its own."""
        return self._attempt.idempotency_key

    @property
    def deadline(self) -> datetime:
        """When this attempt ends, in UTC, as far as this worker knows. A heartbeat extends it; so may the flow."""
        return self._running.deadline

    @property
    def cancelled(self) -> threading.Event:
        """Set once this attempt is over or its flow is halted for good: then the work can stop.

        An async handler is also cancelled when its attempt is over; if its step has no effect, also when the flow is
        halted. A plain handler checks this event: `if ctx.cancelled.is_set()`, or `ctx.cancelled.wait(5)` to sleep.
        """
        return self._running.cancelled

    @property
    def logger(self) -> FlowLogger:
        """A logger that adds the flow id and the step to its lines."""
        if self._logger is None:
            attempt = self._attempt
            self._logger = FlowLogger(
                logging.getLogger(f"handrail.agent.{attempt.step.agent}"),
                {"flow_id": attempt.flow_id, "step": attempt.step.name, "attempt": attempt.attempt},
            )
        return self._logger

    async def flow(self) -> Flow:
        """Reads the flow so far, at least up to the current event, with one read from the broker."""
        return await self._store.load(self.flow_type, self.flow_id, at_least=self._delivery.sequence)

    async def latest(self, message: type[M]) -> M | None:
        """Returns the flow's newest fact of this type, or None."""
        facts = (await self.flow()).facts_by_type.get(message.DESCRIPTOR.full_name)
        return message.FromString(facts[-1].event.data.value) if facts else None

    async def heartbeat(self, note: str = "") -> None:
        """Reports that the work continues: the step's timeout starts over. Call it as often as you like.

        The broker is told each time; the flow records it once per third of the timeout, so that long work does not
        flood it. `note` says how far the work is, for people.
        """
        self._delivery.in_progress()
        now = self._clock.now()
        if self._last_heartbeat is not None and now - self._last_heartbeat < self._attempt.timeout / 3:
            return
        self._last_heartbeat = now
        try:
            self._counter = await self._outcomes.heartbeat(self._attempt, self._counter, note)
            self._running.deadline = self._clock.now() + self._attempt.timeout
        except PASSES as error:
            self.logger.warning("heartbeat not recorded: %s", error.text)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs one of the async methods above from a plain handler, e.g. `ctx.wait(ctx.heartbeat("half"))`."""
        if threading.get_ident() == self._thread:
            coroutine.close()
            raise RuntimeError(
                "ctx.wait is for plain handlers, which run in their own thread; async handlers await the call"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class FlowLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the flow to each line: as attributes of the record for machines, and before the text for people."""

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Is called by logging for every line."""
        extra = dict(self.extra or {})
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return f"flow {extra.get('flow_id')}: step {extra.get('step')}: {msg}", kwargs
