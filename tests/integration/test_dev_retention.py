"""`handrail dev` purges finished flows that are old enough, and shows them from its archive."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from handrail.cli.client import Client
from handrail.cli.dev import parts
from handrail.cli.dev.package import load_package
from handrail.cli.dev.people import OPERATOR
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.contracts import pack
from handrail.mesh.permissions import ADMIN
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus
from payments.v1 import payments_pb2
from tests.support.dev import wait_for
from tests.support.retained import in_flow

SECONDS = 180


def test_what_is_old_enough_is_purged_and_shown_from_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_HANDRAIL", (sys.executable, "-m", "tests.support.hasty"))
    options = DevOptions(folder=tmp_path / "data", package=load_package("demos.payments"), sync_always=False)
    with DevStack(options) as stack, stack_client(stack) as client:
        paid, waiting = start(client, units=20), start(client, units=5000)
        wait_for(lambda: in_flow_of(stack) == {waiting}, "the paid refund to leave FLOW", seconds=SECONDS)
        shown, open_ = flow(client, paid), flow(client, waiting)
    assert (shown.archived, shown.status) == (True, FlowStatus.FLOW_STATUS_COMPLETED)
    assert (open_.archived, open_.status) == (False, FlowStatus.FLOW_STATUS_WAITING_APPROVAL)


def stack_client(stack: DevStack) -> Client:
    """Starts everything; a client of the operator."""
    stack.start()
    stack.start_agents()
    return stack.client(OPERATOR)


def start(client: Client, *, units: int) -> str:
    """Begins a refund, and returns its id."""
    received = payments_pb2.ChargebackReceived(chargeback_id=f"cb-{units}", account_id="acct-1")
    received.amount.currency_code, received.amount.units = "EUR", units
    request = pb.StartFlowRequest(flow_type="refund", data=pack(received), request_id=f"start-{units}")
    return client.call(client.flows.StartFlow, request).flow_id


def flow(client: Client, flow_id: str) -> pb.Flow:
    return client.call(client.flows.GetFlow, pb.GetFlowRequest(flow_id=flow_id)).flow


def in_flow_of(stack: DevStack) -> set[str]:
    """The ids of the flows that FLOW has messages of."""

    async def asked() -> set[str]:
        login = stack.broker.credentials.user(ADMIN).login(BusSettings(servers=(stack.nats_url,), name=ADMIN))
        async with await NatsBus.connect(login) as bus:
            return await in_flow(bus)

    return asyncio.run(asked())
