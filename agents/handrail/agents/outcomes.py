"""Publishes the outcomes of attempts. The trigger is acked only after the stream has stored them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from google.protobuf.any_pb2 import Any

from handrail.agents.attempt import Attempt, differs
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.mesh import telemetry
from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.flow import EffectState
from handrail.mesh.flow.work import SAFE_AGE, Moment
from handrail.mesh.streams import outcomes
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire.envelope import Entry, Recorded, type_of
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind

_logger = logging.getLogger(__name__)

_UNDONE = frozenset({EffectState.UNDOING, EffectState.UNDONE, EffectState.UNDONE_BY_HAND})


class Outcomes:
    """Publishes an agent's messages about its attempts. Waits while the broker can't store them.

    A flow may have ended, and been purged, since its message came: an old message has to be there still when it is
    answered. Otherwise nothing is stored, each call raises FLOW_ARCHIVED, and what it would have said of an effect is
    in quarantine.
    """

    def __init__(
        self, bus: Bus, *, store: FlowStore, quarantine: Quarantine, clock: Clock, patience: BrokerRetry
    ) -> None:
        self._bus = bus
        self._quarantine = quarantine
        self._store = store
        self._clock = clock
        self._patience = patience

    async def answer(self, attempt: Attempt, outputs: Sequence[Any], *, single_type: bool, parent: str) -> None:
        """Publishes the outputs of an attempt one by one, and returns when the stream has stored all of them.

        `single_type` says that the handler can answer with one type only; otherwise the first answer under the id wins,
        whatever its type. If the stream already holds a different answer, the remaining outputs are not published and a
        divergence is reported. `parent` is the span that produced the answer. Raises TooLarge.
        """
        for index, data in enumerate(outputs):
            with telemetry.span(
                "publish", flow_id=attempt.flow_id, parent=parent, step=attempt.step.name, message_type=type_of(data)
            ) as span:
                entry = attempt.outcome(data, index=index, total=len(outputs), moment=self._moment(span.span_id))
                stored = await self._report(attempt, entry, first_of_any=not single_type)
            if stored is None or stored.event == entry.event:
                continue
            if differs(stored.event, entry.event):
                await self._diverge(attempt, DivergenceKind.DIVERGENCE_KIND_DIFFERENT_ANSWER, stored, entry)
                return
            if not attempt.undo_of and await self._came_late(attempt, stored):
                await self._diverge(attempt, DivergenceKind.DIVERGENCE_KIND_LATE_OUTCOME, stored, entry)

    def is_late(self, attempt: Attempt) -> bool:
        """Tells whether the flow may have been purged since the message came that the attempt answers."""
        return self._clock.now() - attempt.inputs[0].time > SAFE_AGE

    def send(self, attempt: Attempt, data: Any, *, single_type: bool, on_stored: Callable[[bool], None]) -> None:
        """Publishes the only output of an attempt that is not late, outside of any span. Calls `on_stored` once, from
        the event loop.

        If it was not stored, `answer` finds out why, and tries again if that helps. The report of an undo says that it
        is the flow's next message after the command: then the coordinator need not read the flow.
        """
        entry = attempt.outcome(data, total=1, moment=self._moment(""))
        outcomes.store_nowait(
            self._bus,
            entry,
            lambda outcome: on_stored(isinstance(outcome, int)),
            first_of_any=not single_type,
            right_after=attempt.right_after,
        )

    async def failed(
        self,
        attempt: Attempt,
        error_class: str,
        text: str,
        *,
        retryable: bool,
        outcome_unknown: bool = False,
        parent: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Reports that the attempt failed. `outcome_unknown`: its effect may have happened.

        `error` is an exception that the handler's author did not foresee; its traceback is logged.
        """
        _logger.warning("%s: %s: %s", attempt.label, error_class, text, extra=attempt.log_fields, exc_info=error)
        with telemetry.span("publish", flow_id=attempt.flow_id, parent=parent, step=attempt.step.name) as span:
            span.fail(text)
            entry = attempt.failed(
                error_class,
                text,
                retryable=retryable,
                outcome_unknown=outcome_unknown,
                moment=self._moment(span.span_id),
            )
            await self._report(attempt, entry, first_of_any=True)

    async def not_started(self, attempt: Attempt, text: str) -> None:
        """Reports that the handler did not run, because the flow is halted."""
        _logger.info("%s: not started: %s", attempt.label, text, extra={"flow_id": attempt.flow_id})
        await self._publish(attempt, attempt.not_started(text, moment=self._moment("")), first_of_any=True)

    async def began(self, attempt: Attempt) -> int:
        """Records that the handler is about to be called. Returns the counter of this heartbeat."""
        return await self._patience.insist(lambda: self._progress(attempt, attempt.starts.counter, began=True))

    async def handed_back(self, attempt: Attempt, counter: int) -> None:
        """Records that the worker ended a handler whose start is recorded: the handler did not kill its process."""
        try:
            await self._progress(attempt, counter, handed_back=True)
        except HandrailError as error:
            _logger.warning("%s: could not record that it was handed back: %s", attempt.label, error.text)

    async def waiting(self, attempt: Attempt) -> None:
        """Records that the worker has the attempt but does not begin it."""
        try:
            await self._progress(attempt, attempt.starts.counter, waiting=True)
        except HandrailError as error:
            _logger.warning("%s: could not record that it waits: %s", attempt.label, error.text)

    async def heartbeat(self, attempt: Attempt, counter: int, note: str) -> int:
        """Stores a durable heartbeat under the first free counter after `counter`. Returns that counter."""
        return await self._progress(attempt, counter, note)

    async def _progress(
        self,
        attempt: Attempt,
        counter: int,
        note: str = "",
        *,
        began: bool = False,
        handed_back: bool = False,
        waiting: bool = False,
    ) -> int:
        while True:
            counter += 1
            moment = self._moment(telemetry.current_span_id())
            entry = attempt.progress(
                counter, note, moment=moment, began=began, handed_back=handed_back, waiting=waiting
            )
            if await self._is_new(attempt, entry):
                return counter
            # An earlier start of this attempt used this counter.

    async def _is_new(self, attempt: Attempt, entry: Entry) -> bool:
        """Stores a heartbeat, unless there is one of its counter."""
        if self.is_late(attempt):
            return isinstance(await self._store_once(attempt, entry, first_of_any=False), int)
        try:
            await self._bus.publish(entry.address.subject, entry.body, headers=telemetry.headers())
        except AlreadyStored:
            return False
        return True

    async def _report(self, attempt: Attempt, entry: Entry, *, first_of_any: bool) -> Recorded | None:
        """Does what `_publish` does. If the flow was purged, puts what there is to say of an effect into quarantine."""
        try:
            return await self._publish(attempt, entry, first_of_any=first_of_any)
        except HandrailError as error:
            if error.reason == ErrorReason.ERROR_REASON_FLOW_ARCHIVED and (attempt.may_have_effect or attempt.undo_of):
                await self._put_aside(attempt, entry, error)
            raise

    async def _put_aside(self, attempt: Attempt, entry: Entry, error: HandrailError) -> None:
        detail = (
            f"{error.text}; step {attempt.step.name} may have had an effect since: compare it with the archived flow"
        )
        await self._patience.insist(
            lambda: self._quarantine.put(
                subject=entry.address.subject, body=entry.body, sequence=0, reason=error.reason, detail=detail
            )
        )

    async def _publish(self, attempt: Attempt, entry: Entry, *, first_of_any: bool) -> Recorded | None:
        """Stores a message. Returns None, or the message that the stream already holds under its id.

        With `first_of_any`, a message of another type or kind under the same id counts, too.
        """
        stored = await self._patience.insist(lambda: self._store_once(attempt, entry, first_of_any=first_of_any))
        return stored if isinstance(stored, Recorded) else None

    async def _store_once(self, attempt: Attempt, entry: Entry, *, first_of_any: bool) -> int | Recorded:
        entry.event.late = self.is_late(attempt)
        return await outcomes.store(
            self._bus,
            entry,
            first_of_any=first_of_any,
            only_with=attempt.inputs[0] if entry.event.late else None,
            headers=telemetry.headers(),
        )

    async def _came_late(self, attempt: Attempt, stored: Recorded) -> bool:
        """Whether the flow was halted, or the effect undone, while the handler ran."""
        flow = await self._patience.insist(
            lambda: self._store.load(attempt.template.name, attempt.flow_id, at_least=stored.sequence)
        )
        effect = flow.effects.get(stored.event_id)
        return flow.is_halted or (effect is not None and effect.state in _UNDONE)

    async def _diverge(
        self, attempt: Attempt, kind: DivergenceKind.ValueType, stored: Recorded, refused: Entry
    ) -> None:
        entry = attempt.divergence(kind, stored=stored.event, refused=refused.event, moment=self._moment(""))
        _logger.error(
            "%s: diverged (%s): %s was not stored as %s, the stream holds %s",
            attempt.label,
            DivergenceKind.Name(kind),
            refused.address.message_type,
            refused.address.event_id,
            stored.type,
            extra={"flow_id": attempt.flow_id},
        )
        await self._publish(attempt, entry, first_of_any=False)

    def _moment(self, span_id: str) -> Moment:
        return Moment(self._clock.now(), span_id)
