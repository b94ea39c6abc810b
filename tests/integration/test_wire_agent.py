"""`docs/wire.md` shows an agent without the SDK: the very code on the page does its part on a real broker."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from handrail.mesh.bus import Bus
from handrail.mesh.catalog import Catalog
from handrail.mesh.contracts import Contracts
from handrail.mesh.durables import agent_durable, ensure_durables
from handrail.mesh.envelope import pack
from handrail.mesh.flow import RunState
from handrail.mesh.permissions import render, users
from handrail.mesh.starting import start
from handrail.mesh.store import FlowStore
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.template import Template, load_yaml
from handrail.v1.template_pb2 import StoredTemplate
from payments.v1 import payments_pb2
from tests.contract.source import ROOT
from tests.support.nats_server import running_server

WIRE = ROOT / "docs" / "wire.md"
TEMPLATE = ROOT / "agents" / "demos" / "payments" / "refund.yaml"


def code_on_the_page() -> Callable[[str, str], Awaitable[None]]:
    [code] = re.findall(r"^```python\n(.*?)^```$", WIRE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(WIRE), "exec"), names)
    return cast("Callable[[str, str], Awaitable[None]]", names["handle_one"])


async def test_the_agent_on_the_page_does_its_part(tmp_path: Path) -> None:
    contracts = Contracts.from_messages(
        getattr(payments_pb2, name) for name in payments_pb2.DESCRIPTOR.message_types_by_name
    )
    template = Template.compile(load_yaml(TEMPLATE.read_text()), contracts)
    accounts = render([template.proto], {user.name: f"secret-of-{user.name}" for user in users([template.proto])})
    with running_server(tmp_path, accounts=accounts) as server:
        settings = server.settings("coordinator", user="coordinator", password="secret-of-coordinator")
        async with await Bus.connect(settings) as bus:
            await ensure_streams(bus)
            catalog = Catalog(bus)
            await catalog.put(
                StoredTemplate(template=template.proto, descriptors=template.descriptor_set, digest=template.digest)
            )
            await ensure_durables(bus, catalog.all())
            received = payments_pb2.ChargebackReceived(chargeback_id="cb-1001", account_id="acc-1")
            received.amount.currency_code, received.amount.units = "EUR", 42
            started = await start(bus, template, source="coordinator", data=pack(received), key="cb-1001")

            await code_on_the_page()(server.url, "secret-of-enrichment")

            flow = await FlowStore(bus, catalog).load("refund", started.flow_id)
            assert not flow.void
            assert flow.runs["enrich", started.event_id].state is RunState.DONE
            [enriched] = flow.facts_by_type["payments.v1.ChargebackEnriched"]
            assert ("grant", enriched.event_id) in flow.runs
            info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{agent_durable('enrichment')}")
            assert info["num_ack_pending"] == info["num_pending"] == 0
