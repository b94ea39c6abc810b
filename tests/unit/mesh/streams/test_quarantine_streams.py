"""Which quarantine takes a message, and how each is configured."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handrail.mesh.permissions import matches
from handrail.mesh.streams import QUARANTINE, quarantine_stream
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.streams.quarantine_streams import agents_named
from handrail.mesh.streams.streams import quarantine_config, quarantined_agent, stream_config, stream_configs
from handrail.mesh.wire.subjects import quarantine_subject
from handrail.testing.memory import MemoryBus
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support import flows

AGENTS = ("detection", "enrichment", "notification")


async def kept_in(reporter: str, subject: str) -> str:
    """The stream in which a reporter's record of a message on this subject arrives."""
    bus = MemoryBus(datetime.now(UTC))
    catalog = Catalog(bus)
    await catalog.put(flows.stored(flows.template()))
    await Quarantine(bus, catalog, reporter=reporter).put(
        subject=subject, body=b"odd", sequence=1, reason=ErrorReason.ERROR_REASON_MALFORMED, detail=""
    )
    (name,) = [name for name, messages in bus.messages.items() if messages and quarantined_agent(name) is not None]
    return name


def flow_subject(agent: str) -> str:
    return f"flow.refund.{'a' * 32}.event.{agent}.{'b' * 32}.{flows.ENRICHED}"


@pytest.mark.parametrize("agent", AGENTS)
async def test_p5_what_the_coordinator_reports_of_an_agent_goes_to_that_agents_quarantine(agent: str) -> None:
    assert await kept_in("coordinator", flow_subject(agent)) == f"QUARANTINE_{agent}"


@pytest.mark.parametrize("agent", ["detection", "notification", "stranger", "coordinator"])
async def test_p5_what_an_agent_reports_goes_to_its_own_quarantine(agent: str) -> None:
    assert await kept_in("enrichment", flow_subject(agent)) == "QUARANTINE_enrichment"


@pytest.mark.parametrize("subject", [*map(flow_subject, ("stranger", "coordinator", "A*")), "flow", ""])
async def test_the_coordinators_own_quarantine_takes_what_comes_from_no_known_agent(subject: str) -> None:
    assert await kept_in("coordinator", subject) == QUARANTINE


def test_every_record_has_exactly_one_quarantine() -> None:
    configs = {QUARANTINE: stream_configs()[QUARANTINE]} | {
        quarantine_stream(agent): quarantine_config(agent) for agent in AGENTS
    }
    for reporter in ("coordinator", *AGENTS):
        for about in ("", *AGENTS):
            subject = quarantine_subject("refund", "a" * 32, reporter, about, "b" * 32)
            taking = [name for name, config in configs.items() if any(matches(s, subject) for s in config["subjects"])]
            assert taking == [quarantine_stream(about if reporter == "coordinator" else reporter)]


@pytest.mark.parametrize("agent", ["", "ledger"])
def test_a_quarantine_is_bounded_and_loses_its_own_oldest_messages(agent: str) -> None:
    config = stream_config(quarantine_stream(agent))
    assert 0 < config["max_bytes"] <= 64 << 20
    assert (config["discard"], config["max_msgs_per_subject"], config["deny_purge"]) == ("old", -1, True)


def test_a_quarantine_is_known_by_its_name() -> None:
    assert [quarantined_agent(quarantine_stream(agent)) for agent in ("", "ledger", "a_b-1")] == ["", "ledger", "a_b-1"]
    for other in ("FLOW", "QUARANTINE_", "QUARANTINE_Ledger", "QUARANTINES", "MY_QUARANTINE_ledger"):
        assert quarantined_agent(other) is None


def test_agents_that_only_begin_flows_have_a_quarantine_too() -> None:
    assert agents_named([flows.template()]) == frozenset(AGENTS)
