"""The quarantines on a real server: one of each agent, so that a flood loses that agent's messages alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from handrail.coordinator.lists.quarantined import Kept, QuarantineReader, place_of
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import Bus, NatsBus
from handrail.mesh.errors import BrokerPermission, HandrailError
from handrail.mesh.streams import QUARANTINE, ensure_streams, quarantine_stream, stream_walk
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.streams.quarantine_streams import ensure_quarantines, quarantines
from handrail.mesh.streams.set_up import Wishes, set_up
from handrail.mesh.streams.streams import QUARANTINE_BYTES
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from tests.conftest import Connect
from tests.support import flows
from tests.support.accounts import as_user, configuration, guarded_server
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

TEMPLATE = flows.template()
AGENTS = ["detection", "enrichment", "notification"]
LARGE = b"x" * 900_000


@pytest.fixture
async def quarantined(bus: Bus, catalog: Catalog) -> QuarantineReader:
    """The quarantines of the agents of a flow type, empty."""
    await catalog.put(flows.stored(TEMPLATE))
    await ensure_quarantines(bus, catalog.all())
    return QuarantineReader(bus)


def flow_id(number: int) -> str:
    return f"{number:032x}"


async def keep(
    bus: Bus, catalog: Catalog, number: int, *, reporter: str, flow_type: str = "refund", agent: str = "detection"
) -> None:
    """Quarantines the message of this number, which a flow's first agent published."""
    subject = flows.start(flow_id(number), flow_type=flow_type).address.subject.replace(".detection.", f".{agent}.")
    await Quarantine(bus, catalog, reporter=reporter).put(
        subject=subject,
        body=b"\xff%d" % number,
        sequence=number + 10,
        reason=ErrorReason.ERROR_REASON_MALFORMED,
        detail="it can't be read",
    )


def numbers(page: Kept) -> list[int]:
    return [int(message.flow_id, 16) for message in page.messages]


async def state(bus: Bus, agent: str) -> dict[str, Any]:
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{quarantine_stream(agent)}")
    found: dict[str, Any] = info["state"]
    return found


async def test_every_agent_of_a_template_has_a_quarantine(bus: NatsBus, quarantined: QuarantineReader) -> None:
    assert await quarantines(bus) == ["", *AGENTS]
    config = (await bus.request_json("$JS.API.STREAM.INFO.QUARANTINE_detection"))["config"]
    await ensure_quarantines(bus, [TEMPLATE])
    assert (await bus.request_json("$JS.API.STREAM.INFO.QUARANTINE_detection"))["config"] == config
    assert (config["max_bytes"], config["discard"], config["deny_purge"]) == (QUARANTINE_BYTES, "old", True)


async def test_replicas_that_create_quarantines_at_once_agree(bus: NatsBus) -> None:
    await asyncio.gather(*(ensure_quarantines(bus, [TEMPLATE]) for _ in range(4)))
    assert await quarantines(bus) == ["", *AGENTS]


async def test_p5_what_is_in_quarantine_is_listed_by_agent_and_shown_with_its_bytes(
    bus: Bus, catalog: Catalog, quarantined: QuarantineReader
) -> None:
    await keep(bus, catalog, 0, reporter="notification")
    await keep(bus, catalog, 1, reporter="coordinator", agent="stranger")
    await keep(bus, catalog, 2, reporter="coordinator", flow_type="audit")
    await keep(bus, catalog, 3, reporter="notification")
    await keep(bus, catalog, 4, reporter="detection")
    everything = await quarantined.page(size=9)
    assert numbers(everything) == [1, 2, 4, 0, 3]
    assert [each.agent for each in everything.messages] == ["", "detection", "detection", *["notification"] * 2]
    assert [each.message.body for each in everything.messages] == [b"\xff%d" % each for each in numbers(everything)]

    first = await quarantined.page(size=3)
    assert first.end is not None
    rest = await quarantined.page(size=3, after=first.end)
    assert (numbers(first), numbers(rest), rest.end) == ([1, 2, 4], [0, 3], None)
    assert numbers(await quarantined.page(size=9, agent="notification")) == [0, 3]
    assert numbers(await quarantined.page(size=9, agent="enrichment")) == []
    assert numbers(await quarantined.page(size=9, flow_type="audit")) == [2]
    assert numbers(await quarantined.page(size=9, covers=lambda flow_type: flow_type == "audit")) == [2]

    last = everything.messages[-1]
    assert await quarantined.message(*place_of(last)) == last
    assert (last.flow_type, last.event_id) == ("refund", flows.start(flow_id(3)).event.event_id)
    assert last.message.stream_sequence == 13
    for agent in ("", "notification", "nobody"):
        with pytest.raises(HandrailError) as refusal:
            await quarantined.message(agent, 99)
        assert refusal.value.reason == ErrorReason.ERROR_REASON_QUARANTINE_NOT_FOUND


async def test_what_is_in_quarantine_and_can_not_be_read_is_listed_all_the_same(
    bus: Bus, quarantined: QuarantineReader
) -> None:
    await bus.publish("quarantine.-.-.detection.-.x", b"\xff")
    (listed,) = (await quarantined.page(size=9)).messages
    assert listed.message.body == b"\xff"
    assert listed.message.reason == ErrorReason.ERROR_REASON_MALFORMED


async def test_a_repeated_message_is_kept_once_and_another_under_its_id_beside_it(
    bus: Bus, catalog: Catalog, quarantined: QuarantineReader
) -> None:
    subject = flows.start().address.subject
    put = Quarantine(bus, catalog, reporter="coordinator").put
    for body in (b"first", b"second", b"second"):
        await put(subject=subject, body=body, sequence=1, reason=ErrorReason.ERROR_REASON_MALFORMED, detail="")
    assert [each.message.body for each in (await quarantined.page(size=9)).messages] == [b"first", b"second"]


async def test_an_installation_with_one_quarantine_is_upgraded_and_keeps_its_messages(
    nats_server: NatsServer, connect: Connect
) -> None:
    """As earlier releases configured it: one stream for all, write-once, without a limit."""
    bus = await connect(nats_server.settings("coordinator"))
    once = {"discard": "new", "discard_new_per_subject": True, "max_msgs_per_subject": 1, "deny_purge": True}
    config = {"name": QUARANTINE, "subjects": ["quarantine.>"], "allow_direct": True, "max_bytes": -1, **once}
    await bus.request_json(f"$JS.API.STREAM.CREATE.{QUARANTINE}", {**config, "metadata": {"handrail": "1"}})
    record = Quarantined(detail="old", body=b"kept", reporter="liar")
    await bus.publish(f"quarantine.refund.{flow_id(7)}.detection.{'e' * 32}", record.SerializeToString())

    with pytest.raises(HandrailError, match=r"stream QUARANTINE is not configured.*`handrail admin setup` mends it"):
        await ensure_streams(bus)
    done = [text async for text in set_up(bus, Wishes())]
    assert any("subjects was ['quarantine.>']" in text and "max_bytes was -1" in text for text in done)
    assert [text async for text in set_up(bus, Wishes())] == []
    await ensure_streams(bus)
    await ensure_quarantines(bus, [TEMPLATE])
    assert await quarantines(bus) == ["", *AGENTS]
    (listed,) = (await QuarantineReader(bus).page(size=9, flow_type="refund")).messages
    assert (listed.agent, listed.quarantine_id, listed.flow_id, listed.event_id) == ("", 1, flow_id(7), "e" * 32)
    assert (listed.message.detail, listed.message.body, listed.message.reporter) == ("old", b"kept", "detection")
    assert await QuarantineReader(bus).message("", 1) == listed


async def test_a_quarantine_without_room_is_told_and_keeps_no_coordinator_from_starting(
    bus: NatsBus, catalog: Catalog
) -> None:
    """The broker reserves the size of each quarantine when it creates it."""
    await catalog.put(flows.stored(TEMPLATE))
    room = (8 << 30) - (await bus.request_json("$JS.API.INFO"))["reserved_storage"]
    filler = {"name": "FILLER", "subjects": ["filler"], "max_bytes": room - QUARANTINE_BYTES}
    await bus.request_json("$JS.API.STREAM.CREATE.FILLER", filler)
    replica = Replica(bus, holder="t")
    await replica.prepare(replicas=1)
    assert await quarantines(bus) == ["", "detection"]
    findings = await replica.diagnosis().examine()
    assert findings.keys() == {"stream.QUARANTINE_enrichment", "stream.QUARANTINE_notification"}
    assert "the broker reserves its limit" in findings["stream.QUARANTINE_enrichment"]
    await bus.request_json("$JS.API.STREAM.DELETE.FILLER")
    assert await replica.diagnosis().examine() == {}
    assert await quarantines(bus) == ["", *AGENTS]


async def test_p5_a_flood_of_one_agent_loses_that_agents_messages_alone(tmp_path: Path, connect: Connect) -> None:
    with guarded_server(tmp_path / "nats", TEMPLATE.proto) as server:
        coordinator = await connect(as_user(server, "coordinator"))
        await ensure_streams(coordinator)
        catalog = Catalog(coordinator)
        await catalog.put(flows.stored(TEMPLATE))
        await ensure_quarantines(coordinator, catalog.all())
        hostile, other = await connect(as_user(server, "enrichment")), await connect(as_user(server, "notification"))
        await keep(other, Catalog(other), 1, reporter="notification")
        await keep(coordinator, catalog, 2, reporter="coordinator")
        await keep(coordinator, catalog, 3, reporter="coordinator", agent="stranger")
        await keep(coordinator, catalog, 4, reporter="coordinator", agent="enrichment")

        for target in ("notification.enrichment", "coordinator.enrichment", "coordinator.-"):
            with pytest.raises(BrokerPermission):
                await hostile.publish(f"quarantine.refund.-.{target}.x", b"")
        mebibytes = 2 * (QUARANTINE_BYTES >> 20)
        for start in range(0, mebibytes, 16):
            flood = (f"quarantine.refund.-.enrichment.coordinator.{number}" for number in range(start, start + 16))
            await asyncio.gather(*(hostile.publish(subject, LARGE) for subject in flood))

        flooded = await state(coordinator, "enrichment")
        assert flooded["bytes"] <= QUARANTINE_BYTES
        assert flooded["last_seq"] == mebibytes + 1
        await keep(coordinator, catalog, 5, reporter="coordinator")
        kept = (await QuarantineReader(coordinator).page(size=2 * mebibytes)).messages
        others = [(each.agent, int(each.flow_id, 16)) for each in kept if each.agent != "enrichment"]
        assert others == [("", 3), ("detection", 2), ("detection", 5), ("notification", 1)]
        viewer = await connect(as_user(server, "viewer"))
        read = [each async for each in stream_walk.oldest_first(viewer, "QUARANTINE_notification", "quarantine.>")]
        assert len(read) == 1


async def test_the_quarantine_of_a_new_agent_waits_for_the_reload(
    tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The coordinator creates quarantines of agents that the broker knows, and no other stream."""
    more = flows.template(version=2)
    more.proto.steps.add(name="audit", agent="audit", after=[flows.ENRICHED])
    with guarded_server(tmp_path / "nats", TEMPLATE.proto) as server:
        coordinator = await connect(as_user(server, "coordinator"))
        replica = Replica(coordinator, holder="t")
        await ensure_streams(coordinator)
        for template in (TEMPLATE, more):
            await replica.catalog.put(flows.stored(template))
        await replica.prepare(replicas=1)
        diagnosis = replica.diagnosis()
        for _ in range(3):
            assert await diagnosis.examine() == {}
        assert await quarantines(coordinator) == ["", *AGENTS]
        server.write_config(accounts=configuration(TEMPLATE.proto, more.proto))
        server.reload()

        async def attempt() -> list[str]:
            assert await diagnosis.examine() == {}
            return await quarantines(coordinator)

        await eventually(attempt, lambda found: found == ["", "audit", *AGENTS])
        told = [record.getMessage() for record in caplog.records if "QUARANTINE_audit" in record.getMessage()]
        assert len([text for text in told if "is created once the broker knows its agent" in text]) == 1
        assert not [text for text in told if "was gone" in text]

        assert await diagnosis.examine() == {}
        admin = await connect(as_user(server, "admin"))
        await admin.request_json("$JS.API.STREAM.DELETE.QUARANTINE_audit")
        assert await diagnosis.examine() == {}
        assert "stream QUARANTINE_audit was gone; it was recreated, and starts empty" in caplog.text
