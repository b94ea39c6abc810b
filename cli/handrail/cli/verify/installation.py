"""Reads the raw streams of a running installation, and its coordinator's answers about flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.verify.record import Stored
from handrail.mesh.bus import Bus
from handrail.mesh.errors import BrokerUnavailable
from handrail.v1.flow_service_pb2 import Flow, GetFlowRequest, ListFlowsRequest

_PAGE = 500
_LAGS = 100
_LAG = 0.1


async def stored(bus: Bus, stream: str) -> AsyncIterator[Stored]:
    """Yields every message that a stream holds now, oldest first.

    Raises BrokerUnavailable if a server that lags behind the stream's leader does not catch up within 10 s.
    """
    state = (await bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["state"]
    at, last = int(state["first_seq"]), int(state["last_seq"])
    waited = 0
    while at <= last and state["messages"]:
        page = await bus.read_forward(stream, ">", from_sequence=at, limit=_PAGE)
        for message in page.messages:
            yield Stored(message.sequence, message.subject, message.body, message.time)
            at = message.sequence + 1
        waited = 0 if page.messages else waited + 1
        if waited == _LAGS:
            raise BrokerUnavailable(f"stream {stream} was read up to {at - 1}, but its leader has {last}")
        if waited:
            await asyncio.sleep(_LAG)


def listed(client: Client) -> Iterator[Flow]:
    """Yields every flow as the coordinator lists it, without its expectations."""
    return client.listed(client.flows.ListFlows, ListFlowsRequest(scan=True), items=lambda page: page.flows)


def shown(client: Client, flow_ids: Iterable[str]) -> Iterator[Flow]:
    """Yields these flows as the coordinator shows them; unknown ones are omitted."""
    for flow_id in flow_ids:
        try:
            yield client.call(client.flows.GetFlow, GetFlowRequest(flow_id=flow_id)).flow
        except CommandError as error:
            if error.code is not Exit.NOT_FOUND:
                raise
