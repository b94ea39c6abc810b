"""A threshold set wrong, rolled back while hundreds of flows run, and those moved: nothing is lost, nothing done twice.

Version 2 of the refund asks people about every refund from 10 on, by mistake. 500 flows begin under it. Rolling back
helps those that begin afterwards; the others are moved to version 1 by one command, which is killed half-way and run
again.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from demos.payments.book import Book
from demos.payments.settings import LEDGER, OUTBOX
from handrail.cli.client import Client
from handrail.cli.dev.package import load_package
from handrail.cli.dev.people import OPERATOR
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.mesh.contracts import pack
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import ApprovalRequested, FlowMigrated, FlowStatus
from handrail.v1.event_pb2 import Kind
from payments.v1 import payments_pb2
from tests.support.dev import HANDRAIL, environment, wait_for
from tests.unit.mesh.template.test_yaml_reader import REFUND

FLOWS = 500
THRESHOLD = 10
WRONG_GATE = """  - name: every_refund
    on: payments.v1.SmallRefundGranted
    when: event.amount.units >= 10
    approvers: {roles: [finance]}
    expires_after: 14400s
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    folder = tmp_path_factory.mktemp("migration")
    files = {LEDGER: str(folder / "ledger.sqlite"), OUTBOX: str(folder / "outbox.jsonl")}
    options = DevOptions(folder=folder, package=load_package("demos.payments"), environment=files, sync_always=False)
    with DevStack(options) as running:
        running.start()
        running.start_agents()
        yield running


@pytest.fixture
def client(stack: DevStack) -> Iterator[Client]:
    with stack.client(OPERATOR) as connected:
        yield connected


def command(stack: DevStack, *words: str | Path) -> list[str]:
    token = stack.folder / "tokens" / OPERATOR
    return [*HANDRAIL, *map(str, words), "--address", stack.address, "--token-file", str(token), "--timeout", "60s"]


def handrail(stack: DevStack, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(stack, *words), env=environment(), capture_output=True, text=True, check=False)


def listed(client: Client, status: FlowStatus.ValueType) -> int:
    """How many flows have this status."""
    request = pb.ListFlowsRequest(scan=True, status=status)
    return sum(1 for _ in client.listed(client.flows.ListFlows, request, items=lambda page: page.flows))


def start(client: Client, count: int) -> dict[int, str]:
    """Begin flows of 1, 2, 3, … units; their ids by amount."""
    begun = {}
    for units in range(1, count + 1):
        received = payments_pb2.ChargebackReceived(chargeback_id=f"cb-{units}", account_id=f"acct-{units}")
        received.amount.currency_code, received.amount.units = "EUR", units
        request = pb.StartFlowRequest(flow_type="refund", key=f"cb-{units}", data=pack(received))
        begun[units] = client.call(client.flows.StartFlow, request).flow_id
    return begun


@pytest.mark.timeout(300)
def test_p7_p8_a_wrong_threshold_is_rolled_back_and_the_flows_that_run_are_moved(
    stack: DevStack, client: Client, tmp_path: Path
) -> None:
    wrong = tmp_path / "refund.yaml"
    wrong.write_text(REFUND.read_text().replace("version: 1", "version: 2", 1) + WRONG_GATE)
    put = handrail(stack, "template", "put", wrong, "--contracts", "demos.payments", "--activate")
    assert put.returncode == 0, put.stderr
    stack.refresh_permissions()  # agent refunds may propose what version 2 gates
    flow_ids = start(client, FLOWS)
    wait, done = FlowStatus.FLOW_STATUS_WAITING_APPROVAL, FlowStatus.FLOW_STATUS_COMPLETED
    waiting = FLOWS - THRESHOLD + 1
    wait_for(lambda: listed(client, wait) == waiting, "every refund waits for people", seconds=90)

    back = handrail(stack, "template", "activate", "refund", "1", "--reason", "it asks about every refund")
    assert back.returncode == 0, back.stderr
    plan = handrail(stack, "template", "migrate", "refund", "--to", "1", "--plan")
    assert (plan.returncode, plan.stdout) == (0, f"{waiting} can move to refund@1\n"), plan.stderr
    refused = handrail(stack, "template", "migrate", "refund", "--to", "1")
    assert (refused.returncode, "--reason is required" in refused.stderr) == (2, True)

    migrate = command(stack, "template", "migrate", "refund", "--to", "1", "--reason", "asked by mistake")
    half = subprocess.Popen(migrate, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: listed(client, wait) < waiting - 50, "some have moved")
    half.kill()
    half.wait()
    left = listed(client, wait)
    assert left > 0
    again = subprocess.run(migrate, env=environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert int(again.stdout.split()[0]) <= left

    wait_for(lambda: listed(client, done) == FLOWS, "every flow is complete", seconds=90)
    moved = Book(Path(stack.options.environment[LEDGER])).transfers()
    assert Counter(transfer.chargeback_id for transfer in moved) == {f"cb-{units}": 1 for units in flow_ids}
    for units in (1, THRESHOLD, FLOWS):
        shows_which_version_decided_what(client, flow_ids[units], moved=units >= THRESHOLD)


def shows_which_version_decided_what(client: Client, flow_id: str, *, moved: bool) -> None:
    flow = client.call(client.flows.GetFlow, pb.GetFlowRequest(flow_id=flow_id)).flow
    events = client.call(client.flows.ListFlowEvents, pb.ListFlowEventsRequest(flow_id=flow_id)).events
    assert not [recorded for recorded in events if recorded.void_reason]
    versions = [(recorded.type.rpartition(".")[2], recorded.event.template_version) for recorded in events]
    if not moved:
        assert flow.template_version == 2
        assert {version for _, version in versions} == {2}
        return
    assert flow.template_version == 1
    (migration,) = flow.migrations
    assert (migration.from_version, migration.to_version, migration.reason) == (2, 1, "asked by mistake")
    assert versions[:5] == [
        ("ChargebackReceived", 2),
        ("ChargebackEnriched", 2),
        ("SmallRefundGranted", 2),
        (ApprovalRequested.DESCRIPTOR.name, 2),
        (FlowMigrated.DESCRIPTOR.name, 2),
    ]
    released, *later = [recorded for recorded in events if recorded.sequence > migration.sequence]
    assert released.kind == Kind.KIND_RELEASED
    assert {recorded.event.template_version for recorded in later} == {1}
