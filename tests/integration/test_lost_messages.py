"""A worker and a broker that lost messages: sequences come a second time, with other messages."""

from __future__ import annotations

import shutil

from handrail.agents import Agent
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified
from tests.support import flows
from tests.support.agents import notified, template
from tests.support.mesh import Mesh, publish, workers
from tests.support.nats_server import NatsServer
from tests.support.waiting import until

JOIN = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: enrich, agent: enrichment, after: [payments.v1.ChargebackReceived], emits: [payments.v1.ChargebackEnriched],
     effect: NONE, timeout: 30s}
  - {name: tell, agent: notification, after_all: [
       {type: payments.v1.ChargebackReceived}, {type: payments.v1.ChargebackEnriched}],
     emits: [payments.v1.CustomerNotified], effect: NONE, timeout: 30s}
"""


def chargeback(name: str) -> ChargebackReceived:
    """A first event."""
    event = flows.received()
    event.chargeback_id = name
    return event


async def test_p4_a_worker_that_lost_its_broker_reads_flows_whole_again(mesh: Mesh, nats_server: NatsServer) -> None:
    joined: list[str] = []
    agent = Agent("notification")

    @agent.on_all(ChargebackReceived, ChargebackEnriched)
    async def tell(first: ChargebackReceived, second: ChargebackEnriched) -> CustomerNotified:
        joined.append(first.chargeback_id)
        return notified()

    await mesh.put(template(JOIN))
    data, kept = nats_server.folder / nats_server.name, nats_server.folder / "kept"
    nats_server.stop()
    shutil.copytree(data, kept)
    nats_server.start()
    async with workers(nats_server.settings, [agent]):
        lost = await publish(mesh.bus, flows.start(message=chargeback("lost")))
        await mesh.until_settled("notification")
        nats_server.kill()
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        nats_server.start()
        assert await publish(mesh.bus, flows.start(message=chargeback("stored"))) == lost
        await publish(mesh.bus, flows.enriched())
        await until(lambda: joined)
    assert joined == ["stored"]
