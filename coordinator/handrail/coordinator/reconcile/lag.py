"""The lag: deliveries of FLOW that wait for their ack until the timers of their flow stand.

Timers are set, and messages acknowledged, some time after they came. A flow that is over by then costs no timer. A
crash meanwhile loses nothing: what is not acknowledged is delivered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from datetime import timedelta

from handrail.coordinator.reconcile.backlog import LONGEST_LAG, Backlog
from handrail.coordinator.reconcile.consuming import AtOnce, flow_of
from handrail.coordinator.reconcile.finished import Finished
from handrail.coordinator.reconcile.flow_batch import FlowBatch
from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.reconcile.hurry import is_unhurried
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, raise_again
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus import Delivery, TooManySubjects
from handrail.mesh.fold import fold, is_complete, pinned_version
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.waiting import pause
from handrail.mesh.wire.subjects import Kind

LAG = timedelta(milliseconds=250)
"""How long deliveries wait at least. The broker fires timers every 250 ms at best, so the delay loses nothing."""

_AT_ONCE = 32
"""The most flows whose timers are set at the same time."""

_SILENT = LONGEST_LAG + timedelta(seconds=5)
"""For flows that have waited for so long, the broker may fail no more to say which finished ones have decisions: then
each is read for itself.
"""


class Lag:
    """Groups deliveries by flow, and settles each group. A failure is contained within its flow."""

    def __init__(
        self,
        store: FlowStore,
        reconciler: Reconciler,
        guard: Guard,
        troubles: Troubles,
        finished: Finished,
    ) -> None:
        self._store = store
        self._reconciler = reconciler
        self._guard = guard
        self._troubles = troubles
        self._finished = finished
        self._clock = asyncio.get_running_loop().time
        self._batches: dict[FlowKey, FlowBatch] = {}
        self._backlog = Backlog()
        self._late = AtOnce()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def epoch(self) -> int:
        """The epoch of what comes now; the next begins when the broker may have lost messages."""
        return self._finished.epoch

    def take(self, durable: str, delivery: Delivery, *, epoch: int | None = None) -> None:
        """Takes a delivery of this durable. If its flow has to be decided on at once, that is already done.

        `epoch` is the one in which it came; None: in the present one.
        """
        key = flow_of(delivery.subject)
        came_in = self.epoch if epoch is None else epoch
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = FlowBatch(durable, since=self._clock(), epoch=came_in)
        batch.add(delivery, durable=durable, epoch=came_in)
        self._backlog.take(durable, delivery)

    async def run(self, stopping: asyncio.Event) -> None:
        """Settles what has waited long enough, until `stopping` is set. Call `flush` when nothing is added any more."""
        while not stopping.is_set():
            await pause(stopping, LAG)
            await self.flush(everything=False)

    async def flush(self, *, everything: bool = True) -> None:
        """Settles what has waited long enough, or everything; in the latter case it waits until that is done."""
        finished: dict[FlowKey, FlowBatch] = {}
        pace = Pace()
        for key, batch in list(self._batches.items()):
            await pace.keep()
            try:
                await self._look_at(key, finished, everything=everything)
            except Exception as error:
                # Whoever sets its timers meets the same error, and has its messages delivered again.
                self._batches.pop(key, None)
                self._troubles.failed(batch.durable, key[1], error)
                self._late.begin(self._with_slot(key, batch))
        await self._acknowledge_finished(finished, pace, everything=everything)
        self._backlog.look()
        if everything:
            await self._late.finish()

    async def _look_at(self, key: FlowKey, finished: dict[FlowKey, FlowBatch], *, everything: bool) -> None:
        """Takes out the batch of a flow if something can be done for it now; adds a finished one to `finished`."""
        batch = self._batches[key]
        if self._is_over(key, batch):
            self._acknowledge(self._batches.pop(key))
        elif not await self._is_readable(key, batch):
            self._backlog.let_go(self._batches.pop(key))
        elif self._seems_finished(key, batch):
            finished[key] = self._batches.pop(key)
        elif everything or self._is_late(key, batch):
            self._late.begin(self._with_slot(key, self._batches.pop(key)))

    async def _acknowledge_finished(self, finished: dict[FlowKey, FlowBatch], pace: Pace, *, everything: bool) -> None:
        undecided = await self._undecided(finished)
        pace.resume()
        for key, batch in finished.items():
            await pace.keep()
            if undecided is not None and key in undecided:
                if batch.epoch == self.epoch:
                    self._finished.add(batch.sequences)
                self._acknowledge(batch)
            elif undecided is None and not everything and self._clock() - batch.since < _SILENT.total_seconds():
                self._put_back(key, batch)
            else:
                self._late.begin(self._with_slot(key, batch))

    def _is_over(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Tells whether the flow in hand contains all of these messages, and nothing is left to do."""
        hand = self._reconciler.flows.get(key)
        if hand is None or not all(self._reconciler.covers(key, each.sequence) for each in batch.deliveries):
            return False
        return self._note(key, batch)

    def _note(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Tells whether the flow in hand, which contains all of these messages, is over; notes which ones it has."""
        hand = self._reconciler.flows.get(key)
        if hand is None:
            return False
        if batch.epoch == self.epoch:
            hand.seen |= batch.sequences
        is_over = self._reconciler.is_over(key, since=batch.first_sequence)
        if is_over:
            hand.armed = {}  # so that the echo of its last message, which comes later, costs no read
            self._finished.add(hand.seen_whole)
        return is_over

    def _is_late(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Tells whether the timers have to be set now."""
        waited = timedelta(seconds=self._clock() - batch.since)
        if waited < LAG * 0.9:
            return False
        return not self._is_unhurried(key, batch) or self._backlog.is_long_over(batch, waited)

    def _is_unhurried(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Tells whether the first timer is far away; looks again only once the batch or the flow in hand is another."""
        hand = self._reconciler.flows.get(key)
        position = 0 if hand is None else hand.flow.last_sequence
        if batch.unhurried_at != position and is_unhurried(hand, batch, self._timeouts(key[0])):
            batch.unhurried_at = position
        return batch.unhurried_at == position

    def _timeouts(self, flow_type: str) -> Iterator[timedelta]:
        return (step.timeout for each in self._store.catalog.versions(flow_type) for step in each.steps.values())

    def _put_back(self, key: FlowKey, batch: FlowBatch) -> None:
        """Looks at a batch again at the next flush."""
        batch.begin_anew(self._batches.get(key))
        self._batches[key] = batch

    def _acknowledge(self, batch: FlowBatch) -> None:
        for delivery in batch.deliveries:
            delivery.ack()
        self._backlog.let_go(batch)

    async def _is_readable(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Hands back or quarantines what can't be decoded; tells whether anything is left."""
        if self._reconciler.flows.get(key) is None:
            for delivery, error in batch.decode():
                await self._guard.run(batch.durable, [delivery], raise_again(error))
        return bool(batch.deliveries)

    def _seems_finished(self, key: FlowKey, batch: FlowBatch) -> bool:
        """Tells whether this batch alone shows that the flow began and completed, with nothing in it void.

        A decision between its messages rules that out. A batch that can't be folded is left to a full read, which
        reports the error.
        """
        # More may have come while what can't be decoded was put away.
        history = batch.news() if batch.is_decoded and self._reconciler.flows.get(key) is None else []
        if not history or history[0].event.step or history[0].kind is not Kind.EVENT:
            return False
        flow_type, flow_id = key
        template = self._store.known_template(flow_type, pinned_version(history))
        if template is None or not any(recorded.type in template.completes_with for recorded in history):
            return False
        try:
            flow = fold(template, history)
            return is_complete(flow) and not flow.void and not flow.trips
        except Exception as error:
            self._troubles.failed(batch.durable, flow_id, error)
            return False

    async def _undecided(self, finished: dict[FlowKey, FlowBatch]) -> Collection[FlowKey] | None:
        """Returns the flows that contain no decision: their batch is the whole flow. None: the broker did not answer.

        Whoever appends a decision either sees the message that ends the flow or has it come later; on a replicated
        stream it reads the flow once more before it takes it for over. Here decisions are read after the flow's end is
        known. So one of the two sees what the other wrote, whichever came first. One read serves all flows.
        """
        if not finished:
            return ()
        newest = max((batch.history[-1] for batch in finished.values()), key=lambda recorded: recorded.sequence)
        durable = next(iter(finished.values())).durable
        try:
            decided = await self._store.decided(finished, behind=newest)
        except TooManySubjects:
            return ()
        except Exception as error:
            # To read each of these flows instead would ask even more of a broker that is busy.
            self._troubles.failed(durable, "", error)
            return None
        self._troubles.succeeded(durable)
        return finished.keys() - decided

    async def _with_slot(self, key: FlowKey, batch: FlowBatch) -> None:
        async with self._slots:
            await self._guard.run(batch.durable, batch.deliveries, self._set_timers(key, batch))
        self._backlog.let_go(batch)

    async def _set_timers(self, key: FlowKey, batch: FlowBatch) -> None:
        flow = await self._reconciler.reconcile(
            *key, since=batch.first_sequence, at_least=batch.last_sequence, now=batch.last_time
        )
        for delivery in {each.sequence: each for each in batch.deliveries}.values():
            await self._guard.quarantine_void(delivery, flow)
        self._note(key, batch)
