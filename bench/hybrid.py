"""The same workloads on Handrail: embedded broker, one coordinator, the agents of `bench.chain` in one process each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

import grpc.aio
from google.protobuf.any_pb2 import Any
from google.type.money_pb2 import Money

from handrail.cli.dev.stack import DevStack
from handrail.mesh import streams
from handrail.mesh.bus import BusSettings, Delivery, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import ADMIN
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import decode, pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, parse
from handrail.v1.approval_service_pb2 import ApproveProposalRequest
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import ApprovalRequested
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import ChargebackReceived

_ENDS = (
    "flow.happy.*.event.*.*.payments.v1.CustomerNotified",
    "flow.compensated.*.decision.*.*.handrail.v1.FlowClosed",
    "flow.approved.*.released.*.*.payments.v1.LargeRefundGranted",
    "flow.approved.*.decision.*.*.handrail.v1.ApprovalRequested",
)


class Hybrid:
    """Starts flows as the coordinator's `StartFlow` does, sees them end, and approves over gRPC."""

    name = "handrail"

    def __init__(self, stack: DevStack, park: float) -> None:
        self.on_end: Callable[[str], None] = lambda _: None
        self._stack = stack
        self._park = park
        self._names = itertools.count(1)
        self._start = first_message()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connects, and watches for the ends of flows through a consumer of its own."""
        stack = self._stack
        self._bus, self._watching = [await self._connect(user) for user in (COORDINATOR, ADMIN)]
        await self._watching.request_json(
            f"$JS.API.CONSUMER.CREATE.{streams.FLOW}.bench",
            {
                "stream_name": streams.FLOW,
                "config": {
                    "durable_name": "bench",
                    "filter_subjects": list(_ENDS),
                    "ack_policy": "explicit",
                    "deliver_policy": "new",
                    "max_ack_pending": -1,
                },
            },
        )
        self._pull = await self._watching.pull(streams.FLOW, "bench", in_flight=4000, on_delivery=self._delivered)
        self._channel = grpc.aio.insecure_channel(stack.address)
        self._approvals = ApprovalServiceStub(self._channel)

    def begin(self, work: str) -> str:
        """Starts a flow."""
        flow_id = f"{next(self._names):032x}"
        subject, body = starting(work, flow_id, self._start)
        self._bus.publish_nowait(subject, body, _require_stored)
        return flow_id

    def processes(self) -> Iterable[int]:
        """The processes of the server, the coordinator and the agents."""
        stack = self._stack
        children = (stack.broker.child, stack.coordinator, *stack.agents.values())
        return [child.pid for child in children if child.pid]

    async def close(self) -> None:
        """Disconnects. Whoever started the stack stops it."""
        await self._pull.stop()
        await self._channel.close(None)
        await self._bus.close()
        await self._watching.close()

    async def _connect(self, user: str) -> NatsBus:
        settings = BusSettings(servers=(self._stack.nats_url,), name=user)
        return await NatsBus.connect(self._stack.broker.credentials.user(user).login(settings))

    def _delivered(self, delivery: Delivery) -> None:
        delivery.ack()
        address = parse(delivery.subject)
        if address.message_type != ApprovalRequested.DESCRIPTOR.full_name:
            self.on_end(address.flow_id)
            return
        recorded = decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        request = ApprovalRequested.FromString(recorded.event.data.value)
        asyncio.get_running_loop().call_later(self._park, self._approve, address, request)

    def _approve(self, address: Address, request: ApprovalRequested) -> None:
        task = asyncio.get_running_loop().create_task(self._vote(address, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _vote(self, address: Address, request: ApprovalRequested) -> None:
        approval_id = f"{address.flow_type}.{address.flow_id}.{request.proposal_id}"
        await self._approvals.ApproveProposal(
            ApproveProposalRequest(approval_id=approval_id, digest=request.digest),
            metadata=(("authorization", f"Bearer {self._stack.people.tokens['anna']}"),),
            timeout=20,
        )


def starting(work: str, flow_id: str, data: Any) -> tuple[str, bytes]:
    """The subject and body of the first event of a flow."""
    event_id = ids.start_id(flow_id)
    address = Address(work, flow_id, Kind.EVENT, COORDINATOR, event_id, ChargebackReceived.DESCRIPTOR.full_name)
    event = Event(
        event_id=event_id,
        source=COORDINATOR,
        flow_type=work,
        flow_id=flow_id,
        template_version=1,
        output_total=1,
        data=data,
    )
    return address.subject, event.SerializeToString()


def first_message() -> Any:
    """The data of a first event."""
    return pack(
        ChargebackReceived(
            chargeback_id="c" * 40,
            account_id="a" * 40,
            amount=Money(currency_code="EUR", units=40),
            reason="r" * 60,
        )
    )


def _require_stored(outcome: int | HandrailError) -> None:
    if isinstance(outcome, HandrailError):
        raise outcome
