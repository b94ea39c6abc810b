"""Flows on Handrail: starts them as the coordinator's `StartFlow` does, sees them end, and approves over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta

from bench.calls import Calls
from bench.first_event import first_message, starting
from bench.installation import Installation
from bench.meter import Processes
from bench.tasks import Tasks
from handrail.mesh import streams
from handrail.mesh.bus import Delivery, Pull
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import ADMIN
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.waiting import Patience
from handrail.mesh.wire.envelope import decode
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, parse
from handrail.v1.decision_pb2 import ApprovalRequested

_ENDS = (
    "flow.happy.*.event.*.*.payments.v1.CustomerNotified",
    "flow.compensated.*.decision.*.*.handrail.v1.FlowClosed",
    "flow.approved.*.decision.*.*.handrail.v1.ApprovalRequested",
    "flow.approved.*.released.*.*.payments.v1.LargeRefundGranted",
    "flow.gated.*.released.*.*.payments.v1.LargeRefundGranted",
    "flow.timed.*.decision.*.*.handrail.v1.Escalated",
    "flow.joined.*.event.*.*.payments.v1.CustomerNotified",
)
"""What ends a flow, and what asks for a vote. Each has a durable of its own: one with several filters would cost the
broker, at each passage between files, a look at every stored subject (docs/performance.md).
"""

_IN_FLIGHT = 4000
_SETTLED_WITHIN = timedelta(seconds=60)

OnEnd = Callable[[], None]


class Flows:
    """Runs flows on an installation. In `approved`, a person votes `park` seconds after being asked.

    Besides flow types, it knows three works: `started` (a happy flow that StartFlow starts), `watched` (a happy flow
    with a WatchFlow open until it completes) and `read` (a GetFlow of a compensated flow).
    """

    def __init__(self, installation: Installation, park: float) -> None:
        self.timings: dict[str, list[float]] = defaultdict(list)
        self._installation = installation
        self._park = park
        self._names = itertools.count(1)
        self._data = first_message()
        self._waiting: dict[str, OnEnd] = {}
        self._ended_early: set[str] = set()
        self._voted_at: dict[str, float] = {}
        self._tasks = Tasks()
        self._finished: asyncio.Task[str] | None = None

    async def open(self) -> None:
        """Connects, and watches for the ends of flows through a consumer of its own."""
        self._bus, self._watching = [await self._installation.connect(user) for user in (COORDINATOR, ADMIN)]
        self._pulls = [await self._deliver(f"bench-{number}", subject) for number, subject in enumerate(_ENDS)]
        self._calls = Calls(self._installation)

    def begin(self, work: str, on_end: OnEnd) -> None:
        """Starts a flow, or makes a call."""
        if work == "read":
            self._tasks.spawn(self._read(on_end))
        elif work == "started":
            self._tasks.spawn(self._start(on_end))
        elif work == "watched":
            self._tasks.spawn(self._watch(on_end))
        else:
            self.publish(work, on_end)

    def publish(self, flow_type: str, on_end: OnEnd, *, units: int = 0) -> str:
        """Publishes the first event of a flow and returns the flow's id; 0 units: the usual amount."""
        flow_id = f"{next(self._names):032x}"
        self._waiting[flow_id] = on_end
        subject, body = starting(flow_type, flow_id, first_message(units) if units else self._data)
        self._bus.publish_nowait(subject, body, _require_stored)
        return flow_id

    def processes(self) -> Processes:
        """The processes of the installation."""
        return self._installation.processes()

    async def settled(self) -> None:
        """Waits until the coordinators have acknowledged all messages of flows."""
        for durable in (DECIDE, TRACK):
            looks = Patience(_SETTLED_WITHIN)
            while left := await self._unsettled(durable):
                if not await looks.wait():
                    raise AssertionError(f"{left} messages of {durable} were not acknowledged in time")

    async def close(self) -> None:
        """Disconnects."""
        for pull in self._pulls:
            await pull.stop()
        await self._calls.close()
        await self._bus.close()
        await self._watching.close()

    async def _deliver(self, durable: str, subject: str) -> Pull:
        config = {
            "durable_name": durable,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "deliver_policy": "new",
            "max_ack_pending": -1,
        }
        created = {"stream_name": streams.FLOW, "config": config}
        await self._watching.request_json(f"$JS.API.CONSUMER.CREATE.{streams.FLOW}.{durable}", created)
        return await self._watching.pull(streams.FLOW, durable, in_flight=_IN_FLIGHT, on_delivery=self._delivered)

    async def _unsettled(self, durable: str) -> int:
        info = await self._watching.request_json(f"$JS.API.CONSUMER.INFO.{streams.FLOW}.{durable}")
        return int(info["num_ack_pending"]) + int(info["num_pending"])

    async def _read(self, on_end: OnEnd) -> None:
        if self._finished is None:
            self._finished = asyncio.create_task(self._one_compensated())
        await self._calls.get(await self._finished)
        on_end()

    async def _one_compensated(self) -> str:
        ended = asyncio.Event()
        flow_id = self.publish("compensated", ended.set)
        await ended.wait()
        return flow_id

    async def _start(self, on_end: OnEnd) -> None:
        flow_id = await self._calls.start("happy", self._data)
        if flow_id in self._ended_early:
            self._ended_early.discard(flow_id)
            on_end()
        else:
            self._waiting[flow_id] = on_end

    async def _watch(self, on_end: OnEnd) -> None:
        flow_id = f"{next(self._names):032x}"
        subject, body = starting("happy", flow_id, self._data)
        await self._bus.publish(subject, body)
        began = time.perf_counter()
        events = await self._calls.watch(flow_id)
        self.timings["events"] += [(time.perf_counter() - began) / events] * events
        self._ended_early.discard(flow_id)
        on_end()

    def _delivered(self, delivery: Delivery) -> None:
        delivery.ack()
        address = parse(delivery.subject)
        if address.message_type == ApprovalRequested.DESCRIPTOR.full_name:
            recorded = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
            request = ApprovalRequested.FromString(recorded.event.data.value)
            vote = self._vote(address, request)
            asyncio.get_running_loop().call_later(self._park, self._tasks.spawn, vote)
            return
        if address.kind is Kind.RELEASED and (voted_at := self._voted_at.pop(address.flow_id, None)) is not None:
            self.timings["vote to release"].append(time.perf_counter() - voted_at)
        on_end = self._waiting.pop(address.flow_id, None)
        if on_end is not None:
            on_end()
        else:
            self._ended_early.add(address.flow_id)

    async def _vote(self, address: Address, request: ApprovalRequested) -> None:
        began = self._voted_at[address.flow_id] = time.perf_counter()
        await self._calls.approve(f"approved.{address.flow_id}.{request.proposal_id}", request.digest)
        self.timings["vote to answer"].append(time.perf_counter() - began)


def _require_stored(outcome: int | HandrailError) -> None:
    if isinstance(outcome, HandrailError):
        raise outcome
