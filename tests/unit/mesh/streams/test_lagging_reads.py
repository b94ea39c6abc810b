"""P4: what is written or answered rests on reads that are as new as what the leader has, whatever a replica says."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from google.protobuf.any_pb2 import Any

from handrail.coordinator.api.publish_event import Published, Publishing
from handrail.coordinator.decide import operator_requests, votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.coordinator.lists.quarantined import QuarantineReader
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.flow import ProposalState
from handrail.mesh.streams import FLOW, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import COORDINATOR, Kind, quarantine_subject
from handrail.testing.hosting import HostedCoordinator
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.flow_service_pb2 import PublishEventRequest
from payments.v1.payments_pb2 import Risk
from tests.support import flows
from tests.support.lagging import BehindMemoryBus

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = "c-1"
FLOW_ID = ids.flow_id_from_key("refund", KEY)
READS = 5
"""Reads that the replica answers before it has caught up."""


class Installation:
    """A stream in memory whose replica lags on demand, and a coordinator on it."""

    def __init__(self) -> None:
        self.bus = BehindMemoryBus(NOW)
        self.coordinator = HostedCoordinator(self.bus)
        self.catalog = self.coordinator.catalog
        self.store = self.coordinator.store
        self.publishing = Publishing(self.bus, self.catalog, self.store)

    async def put(self, template: Template) -> None:
        """Store and activate a template."""
        await self.catalog.put(flows.stored(template))
        await self.catalog.activate(template.name, template.version, by="olga", reason="", now=NOW)

    async def start(self, template: Template, *, source: str, data: Any | None = None) -> start_flow.Started:
        """Start the flow of the key."""
        return await start_flow.start(
            self.bus,
            template,
            source=source,
            data=data or pack(flows.received()),
            key=KEY,
            requester="olga" if source == COORDINATOR else "",
            template_of=self.catalog.template,
        )

    def first_events(self) -> int:
        """How many first events the stream holds."""
        return len(self.bus.matching(FLOW, f"flow.refund.{FLOW_ID}.event.*.{ids.start_id(FLOW_ID)}.>"))


@pytest.fixture
async def installation() -> Installation:
    """With the refund of two steps, the first one gated."""
    installation = Installation()
    await installation.put(flows.template(gated=True))
    return installation


@pytest.mark.parametrize("second", [COORDINATOR, "detection"])
async def test_p3_a_reader_that_lags_begins_no_flow_twice(installation: Installation, second: str) -> None:
    template = flows.template(gated=True)
    first = await installation.start(template, source="detection")
    installation.bus.lag(reads=READS)
    again = await installation.start(template, source=second)
    assert (again.flow_id, again.sequence, again.already_started) == (first.flow_id, first.sequence, True)
    assert installation.first_events() == 1


async def test_p3_a_flow_that_another_version_began_is_not_begun_again(installation: Installation) -> None:
    await installation.start(flows.template(gated=True), source="detection")
    proto = flows.template(version=2).proto
    del proto.started_by[:]
    newer = Template.compile(proto, flows.template().contracts)
    await installation.put(newer)
    assert (await installation.start(newer, source=COORDINATOR)).already_started
    assert installation.first_events() == 1


async def test_a_flow_that_was_just_begun_is_found_by_who_steps_in(installation: Installation) -> None:
    started = await installation.start(flows.template(gated=True), source="detection")
    installation.bus.lag(reads=READS)
    flow = await installation.coordinator.operator_actions.record(
        "refund", started.flow_id, operator_requests.cancelling, caller=Caller("olga")
    )
    assert flow.closed == FlowStatus.FLOW_STATUS_CANCELLED


async def test_a_vote_is_judged_on_what_the_leader_has(installation: Installation) -> None:
    started = await installation.start(flows.template(gated=True), source="detection")
    proposed = flows.enriched(started.flow_id, kind=Kind.PROPOSAL)
    sequence = await installation.bus.publish(proposed.address.subject, proposed.body)
    flow = await installation.coordinator._reconciler.reconcile(
        "refund", started.flow_id, since=sequence, at_least=sequence, now=NOW
    )
    proposal = flow.proposals[proposed.address.event_id]
    assert proposal.state is ProposalState.PENDING
    installation.bus.lag(as_of=sequence, reads=READS)
    yes = partial(votes.vote, approval_id=proposed.address.event_id, digest=proposal.digest, approve=True)
    flow = await installation.coordinator.operator_actions.record(
        "refund", started.flow_id, yes, caller=Caller("anna", of_roles(["finance"]))
    )
    assert flow.proposals[proposed.address.event_id].state is ProposalState.RELEASED


async def publish(installation: Installation, flow_id: str) -> Published:
    """Answer the first step as its agent does over gRPC."""
    request = PublishEventRequest(
        flow_id=flow_id,
        flow_type="refund",
        step="enrich",
        root=ids.start_id(flow_id),
        attempt=1,
        output_total=1,
        data=pack(flows.enrichment()),
    )
    return await installation.publishing.publish(request, Caller("ed", of_roles(()), agent="enrichment"))


async def test_an_outcome_for_a_flow_that_was_just_begun_is_taken(installation: Installation) -> None:
    started = await installation.start(flows.template(gated=True), source="detection")
    installation.bus.lag(reads=READS)
    published = await publish(installation, started.flow_id)
    assert (published.kind, published.already_stored) == (Kind.PROPOSAL, False)
    installation.bus.lag(as_of=started.sequence, reads=READS)
    again = await publish(installation, started.flow_id)
    assert (again.sequence, again.already_stored) == (published.sequence, True)


async def test_a_refused_append_names_what_has_to_be_read(installation: Installation) -> None:
    started = await installation.start(flows.template(gated=True), source="detection")
    before = await installation.store.load("refund", started.flow_id)
    proposed = flows.enriched(started.flow_id, kind=Kind.PROPOSAL)
    sequence = await installation.bus.publish(proposed.address.subject, proposed.body)
    other = flows.enriched(started.flow_id, kind=Kind.PROPOSAL, message=flows.enrichment(Risk.RISK_HIGH))
    with pytest.raises(WrongSequence) as refusal:
        await installation.store.append(before, other)
    assert refusal.value.last_sequence == sequence


async def test_templates_are_not_said_to_be_missing_or_active_before_the_leader_was_asked(
    installation: Installation,
) -> None:
    bus = installation.bus
    other = Catalog(bus)
    bus.lag(reads=READS)
    assert (await other.template("refund", 1)).version == 1
    other = Catalog(bus)
    bus.lag(as_of=1, reads=READS)
    assert (await other.active("refund")).version == 1
    await installation.put(flows.template(version=2, gated=True))
    bus.lag(as_of=2, reads=READS)
    again = await other.activate("refund", 1, by="olga", reason="", now=NOW)
    assert (again.activation.version, [each.version for each in other.activations("refund")]) == (1, [1, 2, 1])
    with pytest.raises(HandrailError, match="no template refund version 3"):
        await other.template("refund", 3)


async def test_a_store_that_is_told_nothing_reads_what_a_replica_has(installation: Installation) -> None:
    started = await installation.start(flows.template(gated=True), source="detection")
    installation.bus.lag(reads=1)
    assert await FlowStore(installation.bus, installation.catalog).read("refund", started.flow_id) == []


async def test_a_message_is_not_said_to_be_missing_from_quarantine_before_the_leader_was_asked(
    installation: Installation,
) -> None:
    bus = installation.bus
    record = Quarantined(detail="broken").SerializeToString()
    sequence = await bus.publish(quarantine_subject("refund", FLOW_ID, "coordinator", "", "a" * 32), record)
    reader = QuarantineReader(bus)
    bus.lag(reads=2)
    assert (await reader.message("", sequence)).message.detail == "broken"
    with pytest.raises(HandrailError, match=f"no quarantined message {sequence + 1}"):
        await reader.message("", sequence + 1)
