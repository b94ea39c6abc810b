"""What a call costs, with little in the stream and with much: GetFlow, a vote, GetApproval.

Each call is for another flow, which the coordinator does not have in hand.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import grpc.aio

from bench.at_scale.coordinators import Coordinator, coordinating
from bench.at_scale.stores import BROKER
from bench.meter import cpu_seconds
from handrail.mesh.wire import ids
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, GetApprovalRequest
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.flow_service_pb2 import GetFlowRequest
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from tests.support.nats_server import NatsServer
from tests.support.recorded_refunds import Asked

COORDINATOR = "coordinator"
HEAD = (
    f"| events | call | {COORDINATOR} ms | {BROKER} ms | both, compared | p50 ms | p99 ms |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)

CALLS = 200
"""Calls of a round."""

_WARM = 50
_TIMEOUT = 30.0

Call = Callable[[], Awaitable[object]]


class Cost(NamedTuple):
    """CPU milliseconds of coordinator and broker for a call, and how long it took."""

    coordinator: float
    broker: float
    p50: float
    p99: float

    @property
    def both(self) -> float:
        """CPU of both."""
        return self.coordinator + self.broker


class Costs:
    """What calls cost by the size of the stream; the first size is what others are compared with."""

    def __init__(self) -> None:
        self._first: dict[str, Cost] = {}

    def rows(self, events: int, found: dict[str, Cost]) -> str:
        """Rows of the table."""
        lines = []
        for call, cost in found.items():
            first = self._first.setdefault(call, cost)
            lines.append(
                f"| {events:,} | {call} | {cost.coordinator:.2f} | {cost.broker:.2f} | {cost.both / first.both:.2f} "
                f"| {cost.p50:.1f} | {cost.p99:.1f} |"
            )
        return "\n".join(lines)


async def measure(
    server: NatsServer, folder: Path, *, refunds: int, asked: Sequence[Asked], rounds: int
) -> dict[str, Cost]:
    """Makes rounds of calls, one after the other. `asked` has an approval for each vote, and some to warm up."""
    draw = Random(2)
    flows = [ids.flow_id_from_key("refund", f"cb-1-{nth}") for nth in range(refunds)]
    found: defaultdict[str, list[Cost]] = defaultdict(list)
    with coordinating(server, folder, HANDRAIL_SWEEP_INTERVAL="1h") as coordinator:
        async with grpc.aio.insecure_channel(coordinator.address) as channel:
            approvals, get = ApprovalServiceStub(channel), FlowServiceStub(channel)
            metadata = (("authorization", f"Bearer {coordinator.tokens[0]}"),)

            def read_flow(flow_id: str) -> Call:
                request = GetFlowRequest(flow_id=flow_id)
                return lambda: get.GetFlow(request, metadata=metadata, timeout=_TIMEOUT)

            def read_approval(each: Asked) -> Call:
                request = GetApprovalRequest(approval_id=each.approval_id)
                return lambda: approvals.GetApproval(request, metadata=metadata, timeout=_TIMEOUT)

            def vote(each: Asked) -> Call:
                request = ApproveProposalRequest(approval_id=each.approval_id, digest=each.digest)
                return lambda: approvals.ApproveProposal(request, metadata=metadata, timeout=_TIMEOUT)

            left = iter(asked)
            for each in (next(left) for _ in range(_WARM)):
                for call in (read_flow(draw.choice(flows)), read_approval(each), vote(each)):
                    await call()
            for _ in range(rounds):
                some = [next(left) for _ in range(CALLS)]
                turns = {
                    "GetFlow": [read_flow(each) for each in draw.sample(flows, CALLS)],
                    "GetApproval": [read_approval(each) for each in draw.sample(asked[-10 * CALLS :], CALLS)],
                    "a vote": [vote(each) for each in some],
                }
                for name, calls in turns.items():
                    found[name].append(await _cost(coordinator, server, calls))
    return {name: _median(costs) for name, costs in found.items()}


async def _cost(coordinator: Coordinator, server: NatsServer, calls: Sequence[Call]) -> Cost:
    before, took = (cpu_seconds([coordinator.pid]), cpu_seconds([server.pid])), []
    for call in calls:
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1000)
    after = (cpu_seconds([coordinator.pid]), cpu_seconds([server.pid]))
    each = [(late - early) / len(calls) * 1000 for early, late in zip(before, after, strict=True)]
    cuts = statistics.quantiles(took, n=100)
    return Cost(each[0], each[1], cuts[49], cuts[98])


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))
