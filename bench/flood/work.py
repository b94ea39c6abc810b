"""How long others' approvals take while one agent floods the broker: from the proposal to its release."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import grpc.aio

from bench.first_event import first_message, starting
from bench.flood.hostile import NAME
from handrail.cli.dev.stack import DevStack
from handrail.mesh import streams
from handrail.mesh.bus import BusSettings, Delivery, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import ADMIN
from handrail.mesh.waiting import pause
from handrail.mesh.wire.envelope import decode
from handrail.mesh.wire.subjects import Kind, parse
from handrail.v1.approval_service_pb2 import ApproveProposalRequest
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import ApprovalRequested

_WORK = "approved"
_EVERY = 0.1
"""Seconds between two flows of the others."""

_DRAIN = timedelta(seconds=60)
"""How long the last of them may take."""

KINDS = ("nothing", "event", "proposal", "failure", "divergence")
"""What the hostile agent publishes."""


async def measure(stack: DevStack, kind: str, rate: int, seconds: float) -> None:
    """Runs flows for so many seconds, beside a flood of this kind, and prints a row."""
    async with (
        await NatsBus.connect(_settings(stack, ADMIN)) as bus,
        grpc.aio.insecure_channel(stack.address) as channel,
    ):
        others = _Others(bus, channel, stack.people.tokens["anna"])
        await others.open()
        flood = await _hostile(stack, kind, rate, seconds) if kind != KINDS[0] else None
        await others.run(seconds)
        sent = int((await flood.communicate())[0]) if flood is not None else 0
        await others.close()
    print(_row(kind, sent / seconds, others.asked, others.released), flush=True)


class _Others:
    """Flows whose only step asks a person, who approves at once."""

    def __init__(self, bus: NatsBus, channel: grpc.aio.Channel, token: str) -> None:
        self._bus = bus
        self._approvals = ApprovalServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._proposed: dict[str, float] = {}
        self._names = itertools.count(time.time_ns())
        self._open: set[str] = set()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[float] = []
        self.released: list[float] = []

    async def open(self) -> None:
        """Listens to what the broker stores of these flows."""
        kinds = (Kind.PROPOSAL, Kind.RELEASED, Kind.DECISION)
        config = {
            "durable_name": "bench",
            "filter_subjects": [f"flow.{_WORK}.*.{kind}.>" for kind in kinds],
            "ack_policy": "explicit",
            "deliver_policy": "new",
            "max_ack_pending": -1,
        }
        await self._bus.request_json(
            f"$JS.API.CONSUMER.CREATE.{streams.FLOW}.bench", {"stream_name": streams.FLOW, "config": config}
        )
        self._pull = await self._bus.pull(streams.FLOW, "bench", in_flight=1000, on_delivery=self._delivered)

    async def run(self, seconds: float) -> None:
        """Starts flows at a steady rate, and waits until they have ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._begin()
            await asyncio.sleep(_EVERY)
        if self._open:
            self._ended.clear()
            await pause(self._ended, _DRAIN)

    async def close(self) -> None:
        """Stops listening."""
        await self._pull.stop()

    def _begin(self) -> None:
        flow_id = f"{next(self._names):032x}"
        self._open.add(flow_id)
        subject, body = starting(_WORK, flow_id, first_message())
        self._bus.publish_nowait(subject, body, _require_stored)

    def _delivered(self, delivery: Delivery) -> None:
        delivery.ack()
        now, address = time.monotonic(), parse(delivery.subject)
        if address.kind is Kind.PROPOSAL:
            self._proposed[address.flow_id] = now
        elif address.kind is Kind.RELEASED:
            self.released.append(now - self._proposed[address.flow_id])
            self._open.discard(address.flow_id)
            if not self._open:
                self._ended.set()
        elif address.message_type == ApprovalRequested.DESCRIPTOR.full_name:
            self.asked.append(now - self._proposed[address.flow_id])
            recorded = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
            request = ApprovalRequested.FromString(recorded.event.data.value)
            task = asyncio.create_task(self._vote(address.flow_id, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _vote(self, flow_id: str, request: ApprovalRequested) -> None:
        approval_id = f"{_WORK}.{flow_id}.{request.proposal_id}"
        await self._approvals.ApproveProposal(
            ApproveProposalRequest(approval_id=approval_id, digest=request.digest),
            metadata=self._metadata,
            timeout=_DRAIN.total_seconds(),
        )


async def _hostile(stack: DevStack, kind: str, rate: int, seconds: float) -> asyncio.subprocess.Process:
    seed_file = _settings(stack, NAME).nkey_seed_file
    command = ("-m", "bench.flood.hostile", stack.nats_url, str(seed_file), kind, str(rate), str(seconds))
    folder = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(sys.executable, *command, cwd=folder, stdout=asyncio.subprocess.PIPE)


def _settings(stack: DevStack, user: str) -> BusSettings:
    return stack.broker.credentials.user(user).login(BusSettings(servers=(stack.nats_url,), name=user))


def _require_stored(outcome: int | HandrailError) -> None:
    if isinstance(outcome, HandrailError):
        raise outcome


HEAD = f"{'one agent floods':<18}{'messages/s':>11}{'flows':>7}{'  asked, ms: p50':>17}{'p99':>7}{'max':>7}" + (
    f"{'  released, ms: p50':>20}{'p99':>7}{'max':>7}"
)


def _row(kind: str, rate: float, asked: Sequence[float], released: Sequence[float]) -> str:
    return (
        f"{kind:<18}{rate:>11,.0f}{len(released):>7}"
        f"{_ms(asked, 0.5):>17}{_ms(asked, 0.99):>7}{_ms(asked, 1):>7}"
        f"{_ms(released, 0.5):>20}{_ms(released, 0.99):>7}{_ms(released, 1):>7}"
    )


def _ms(seconds: Sequence[float], part: float) -> str:
    if not seconds:
        return "-"
    return f"{sorted(seconds)[min(len(seconds) - 1, int(part * len(seconds)))] * 1000:,.0f}"
