"""Templates in the TEMPLATE stream of a real server."""

import asyncio
from datetime import UTC, datetime

import pytest

from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import TEMPLATE
from handrail.mesh.streams.catalog import Catalog
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support import flows

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def test_a_template_is_stored_and_read_by_others(bus: Bus, catalog: Catalog) -> None:
    assert await catalog.put(flows.stored(flows.template()))
    other = Catalog(bus)
    assert other.get("refund", 1) is None
    template = await other.template("refund", 1)
    assert template.digest == flows.template().digest
    assert template.contracts.knows(flows.ENRICHED)
    assert other.get("refund", 1) is template
    stored = other.stored("refund", 1)
    assert stored is not None
    assert stored.put_by == "olga"


async def test_the_same_content_again_is_harmless_and_other_content_is_refused(catalog: Catalog) -> None:
    assert await catalog.put(flows.stored(flows.template()))
    assert not await catalog.put(flows.stored(flows.template()))
    with pytest.raises(HandrailError, match="refund version 1") as refusal:
        await catalog.put(flows.stored(flows.template(gated=True)))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TEMPLATE_EXISTS
    assert not catalog.versions("refund")[0].gates


async def test_versions_are_kept_side_by_side(catalog: Catalog) -> None:
    for name, version in (("refund", 2), ("refund", 1), ("audit", 1)):
        await catalog.put(flows.stored(flows.template(name, version)))
    assert [(template.name, template.version) for template in catalog.all()] == [
        ("audit", 1),
        ("refund", 1),
        ("refund", 2),
    ]
    assert [template.version for template in catalog.versions("refund")] == [1, 2]
    assert catalog.names() == ("audit", "refund")


async def test_the_last_activation_says_what_is_active(bus: Bus, catalog: Catalog) -> None:
    for version in (1, 2):
        await catalog.put(flows.stored(flows.template(version=version)))
    with pytest.raises(HandrailError) as refusal:
        await catalog.active("refund")
    assert refusal.value.reason == ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND
    for version in (1, 2, 1):
        await catalog.activate("refund", version, by="olga", reason=f"try {version}", now=NOW)
    other = Catalog(bus)
    assert (await other.active("refund")).version == 1
    assert [entry.version for entry in other.activations("refund")] == [1, 2, 1]
    assert other.activations("refund")[2].reason == "try 1"


async def test_activating_what_is_active_adds_nothing(catalog: Catalog) -> None:
    await catalog.put(flows.stored(flows.template()))
    for reason in ("first", "again"):
        entry = await catalog.activate("refund", 1, by="olga", reason=reason, now=NOW)
        assert entry.activation.reason == "first"
    assert len(catalog.activations("refund")) == 1


async def test_activations_at_once_are_all_recorded_one_after_the_other(bus: Bus, catalog: Catalog) -> None:
    for version in range(1, 6):
        await catalog.put(flows.stored(flows.template(version=version)))
    catalogs = [Catalog(bus) for _ in range(5)]
    await asyncio.gather(
        *(
            each.activate("refund", number + 1, by="olga", reason="race", now=NOW)
            for number, each in enumerate(catalogs)
        )
    )
    await catalog.refresh()
    assert sorted(entry.version for entry in catalog.activations("refund")) == [1, 2, 3, 4, 5]


async def test_what_is_not_stored_can_be_neither_read_nor_activated(catalog: Catalog) -> None:
    with pytest.raises(HandrailError) as refusal:
        await catalog.template("refund", 7)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND
    with pytest.raises(HandrailError) as refusal:
        await catalog.activate("refund", 7, by="olga", reason="", now=NOW)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND


async def test_an_entry_that_can_not_be_read_does_not_hide_the_others(bus: Bus, catalog: Catalog) -> None:
    await bus.publish("template.refund.1", b"\xff")
    await bus.publish("template.refund.active.one", b"\xff")
    await catalog.put(flows.stored(flows.template(version=2)))
    other = Catalog(bus)
    assert (await other.template("refund", 2)).version == 2
    with pytest.raises(HandrailError) as refusal:
        await other.put(flows.stored(flows.template()))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TEMPLATE_EXISTS


async def test_more_templates_than_one_read_gives_are_read(bus: Bus, catalog: Catalog) -> None:
    message = flows.stored(flows.template())
    for version in range(1, 251):
        message.template.version = version
        await bus.publish(f"template.refund.{version}", message.SerializeToString())
    assert await catalog.refresh()
    assert len(catalog.versions("refund")) == 250
    assert not await catalog.refresh()
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{TEMPLATE}")
    assert info["state"]["messages"] == 250
