"""Time in which nobody was there, on a real server: who says so, that it is said once, and that it undoes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest

from handrail.agents import Agent
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.coordinator.decide.votes import vote
from handrail.coordinator.reconcile.presence import Presence, Present
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import BusSettings, NatsBus, RawMessage
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.flow import Flow, ProposalState
from handrail.mesh.flow.absence import Absence
from handrail.mesh.streams import ABSENCE, LEASES
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.wire.envelope import from_timestamp
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Absence as AbsenceMessage
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified, Risk
from tests.support import flows
from tests.support.agents import template
from tests.support.coordinator import coordinating
from tests.support.mesh import Mesh, publish, workers
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

SOON = timedelta(seconds=0.4)
"""What counts as an absence here, so that nobody has to wait for fifteen seconds."""

Connect = Callable[[BusSettings], Awaitable[NatsBus]]

TEMPLATE = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 12s
steps:
  - {name: enrich, agent: enrichment, after: [payments.v1.ChargebackReceived],
     emits: [payments.v1.ChargebackEnriched], effect: UNDOABLE, timeout: 10s, on_failure: COMPENSATE,
     undo: {timeout: 10s}}
  - {name: notify, agent: notification, after: [payments.v1.ChargebackEnriched],
     emits: [payments.v1.CustomerNotified], effect: IRREVERSIBLE, timeout: 10s, on_failure: COMPENSATE}
gates:
  - {name: look, on: payments.v1.ChargebackEnriched, when: event.risk == 3, approvers: {roles: [finance]},
     expires_after: 11s, on_reject: FAIL}
"""


async def silence(for_: timedelta = SOON * 2) -> None:
    """The one thing here that takes time: an absence."""
    await asyncio.sleep(for_.total_seconds())


async def recorded(bus: NatsBus) -> tuple[int, Absence]:
    """How many absences were ever recorded, and the last one."""
    message = await bus.last_on_leader(ABSENCE, "absence.>")
    assert message is not None
    said = AbsenceMessage.FromString(message.body)
    return message.sequence, Absence(from_timestamp(said.start_time), from_timestamp(said.end_time))


async def beat(bus: NatsBus) -> RawMessage:
    """The last sign of presence."""
    message = await bus.last_on_leader(LEASES, "$KV.leases.presence")
    assert message is not None
    return message


async def test_the_first_sign_ever_follows_no_absence(bus: NatsBus) -> None:
    assert (await Presence(bus, absent_after=SOON).present()).absences == ()


class Beats:
    """Coordinators that sign one after the other, and the silences between their signs by the broker's clock."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._times: list[datetime] = []

    async def sign(self, presence: Presence) -> Present:
        """Has a coordinator sign, of which nothing was heard for a while."""
        present = await presence.present()
        self._times.append((await beat(self._bus)).time)
        return present

    @property
    def silences(self) -> tuple[Absence, ...]:
        """Those that count as absences. A busy machine adds some to those that the test makes."""
        between = [Absence(start, end) for start, end in pairwise(self._times)]
        return tuple(each for each in between if each.end - each.start > SOON)


async def test_a_silence_is_on_record_once_with_the_brokers_times_and_everybody_knows(bus: NatsBus) -> None:
    beats = Beats(bus)
    await beats.sign(Presence(bus, absent_after=SOON))
    before = await beat(bus)
    await silence()
    for number in range(3):
        known = (await beats.sign(Presence(bus, absent_after=SOON))).absences
        assert known == beats.silences
        assert known[0].start == before.time
        assert await recorded(bus) == (len(known), known[-1]), f"the coordinator {number} records none twice"


async def test_who_was_paused_beside_another_was_not_missed(bus: NatsBus) -> None:
    beats, paused = Beats(bus), Presence(bus, absent_after=SOON)
    await beats.sign(paused)
    for _ in range(6):
        await silence(SOON / 3)
        await beats.sign(Presence(bus, absent_after=SOON))
    assert (await beats.sign(paused)).absences == beats.silences


async def test_an_absence_that_nobody_lived_to_record_is_recorded_by_the_next(bus: NatsBus) -> None:
    class Dies(Presence):
        async def _record(self, gap: Absence) -> None:
            raise BrokerUnavailable("killed before it could record the gap")

    await Presence(bus, absent_after=SOON).present()
    start = (await beat(bus)).time
    await silence()
    with pytest.raises(BrokerUnavailable):
        await Dies(bus, absent_after=SOON).present()
    absences = (await Presence(bus, absent_after=SOON).present()).absences
    assert absences[0].start == start


async def test_nobody_is_there_where_timers_are_not_handled(bus: NatsBus, catalog: Catalog) -> None:
    """The process alone is no presence: without the durable nothing that fired is handed out."""
    presence, stopping = Presence(bus, absent_after=SOON), asyncio.Event()
    running = asyncio.create_task(presence.run(stopping))
    await silence(SOON)
    assert await bus.last_on_leader(LEASES, "$KV.leases.presence") is None
    await ensure_durables(bus, catalog.all())
    await eventually(lambda: bus.last_on_leader(LEASES, "$KV.leases.presence"), bool)
    stopping.set()
    await running


@asynccontextmanager
async def killed(server: NatsServer) -> AsyncIterator[Replica]:
    """A coordinator of its own connection, for as long as the block runs."""
    async with (
        await NatsBus.connect(server.settings("coordinator")) as bus,
        coordinating(bus, is_killed=True, absent_after=SOON) as replica,
    ):
        yield replica


def agents() -> list[Agent]:
    """The two that do the work of a refund."""
    enrichment, notification = Agent("enrichment"), Agent("notification")

    @enrichment.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return flows.enrichment()

    @enrichment.undoes(ChargebackEnriched)
    async def forget(event: ChargebackEnriched) -> None:
        return None

    @notification.on(ChargebackEnriched)
    async def notify(event: ChargebackEnriched) -> CustomerNotified:
        return flows.told()

    return [enrichment, notification]


def is_asked(flow: Flow) -> bool:
    return any(proposal.state is ProposalState.PENDING for proposal in flow.proposals.values())


async def test_p7_an_outage_of_everything_undoes_nothing_and_lets_no_approval_expire(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    """Down for longer than every time-out, expiry and deadline: server, coordinator and agents."""
    waiting, asked = "a" * 32, "b" * 32
    await mesh.put(template(TEMPLATE))
    async with killed(nats_server):
        proposed = flows.enriched(asked, kind=Kind.PROPOSAL, message=flows.enrichment(Risk.RISK_HIGH))
        await publish(mesh.bus, flows.start(asked), flows.start(waiting), proposed)
        await mesh.until(asked, is_asked)
    nats_server.kill()
    await silence(timedelta(seconds=13))
    nats_server.start()
    async with killed(nats_server) as replica, workers(nats_server.settings, agents()):
        proposal = next(iter((await mesh.flow(asked)).proposals.values()))
        yes = partial(vote, approval_id=proposal.recorded.event_id, digest=proposal.digest, approve=True)
        await replica.operator_actions.record("refund", asked, yes, caller=Caller("ann", of_roles(["finance"])))
        for flow_id in (waiting, asked):
            await mesh.until_status(flow_id, "COMPLETED")
    for flow_id in (waiting, asked):
        history = await mesh.store.read("refund", flow_id)
        said = Counter(recorded.type.rpartition(".")[2] for recorded in history)
        assert not said.keys() & {"StepTimedOut", "FlowHalted", "Escalated", "ApprovalRefused"}, said
